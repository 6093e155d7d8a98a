"""Replicas of the GCS elect a leader on a model of etcd, in virtual time: calls are late, lost, or done unanswered,
links hang and release what they held, replicas crash and resign. Whoever was followed writes nothing any more.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from aetcd import rpc
from support import virtual_time
from support.walks import walks

from shoal_common.metadata.etcd_fence import EPOCH_KEY, epoch_value
from shoal_common.metadata.etcd_leader import Leadership, campaign
from shoal_common.metadata.etcd_shard import EtcdAccess, EtcdShard
from shoal_common.metadata.group_commit import GroupCommit
from shoal_common.metadata.store import MetadataStoreError

REPLICAS, SHARDS = 3, 2
TTL_S, DEADLINE_S = 5.0, 10.0


class Etcd:
    """One shard's server: keys, leases, transactions and watches, as far as an election takes them."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.revision = 1
        self.kvs: dict[bytes, Any] = {EPOCH_KEY: rpc.KeyValue(key=EPOCH_KEY, value=epoch_value(0), mod_revision=1)}
        self.leases: dict[int, tuple[float, asyncio.TimerHandle]] = {}
        self.watches: list[Stream] = []
        #: Epochs of the leaders whose writes were taken, with the time.
        self.taken: list[tuple[float, int]] = []

    def range(self, request: Any) -> Any:
        return rpc.RangeResponse(kvs=[self.kvs[request.key]] if request.key in self.kvs else [])

    def txn(self, request: Any) -> Any:
        held = all(map(self._compare, request.compare))
        if held and any(operation.HasField("request_put") for operation in request.success):
            self.revision += 1
        return rpc.TxnResponse(
            header=rpc.ResponseHeader(revision=self.revision),
            succeeded=held,
            responses=[self._operate(each) for each in (request.success if held else request.failure)],
        )

    def _compare(self, compare: Any) -> bool:
        kv = self.kvs.get(compare.key, rpc.KeyValue())
        match compare.target:
            case rpc.Compare.CREATE:
                return bool(kv.create_revision == compare.create_revision)
            case rpc.Compare.LEASE:
                return bool(kv.lease == compare.lease)
            case _ if compare.result == rpc.Compare.LESS:
                return bool(kv.value < compare.value)
        return bool(kv.value == compare.value)

    def _operate(self, operation: Any) -> Any:
        if operation.HasField("request_range"):
            return rpc.ResponseOp(response_range=self.range(operation.request_range))
        put = operation.request_put
        if put.lease and put.lease not in self.leases:
            raise MetadataStoreError("lease not found")
        self.kvs[put.key] = rpc.KeyValue(
            key=put.key, value=put.value, lease=put.lease, create_revision=self.revision, mod_revision=self.revision
        )
        if put.key.startswith(b"/data/"):
            self.taken.append((asyncio.get_running_loop().time(), int(put.value)))
        self._tell(rpc.Event(type=rpc.Event.PUT, kv=self.kvs[put.key]))
        return rpc.ResponseOp(response_put=rpc.PutResponse())

    def grant(self, request: Any) -> None:
        loop = asyncio.get_running_loop()
        self.leases[request.ID] = request.TTL, loop.call_later(request.TTL, self.revoke, request)

    def refresh(self, lease_id: int) -> bool:
        if lease_id not in self.leases:
            return False
        ttl, timer = self.leases[lease_id]
        timer.cancel()
        self.grant(rpc.LeaseGrantRequest(ID=lease_id, TTL=int(ttl)))
        return True

    def revoke(self, request: Any) -> None:
        _, timer = self.leases.pop(request.ID, (0.0, None))
        if timer is not None:
            timer.cancel()
        for key in [key for key, kv in self.kvs.items() if kv.lease and kv.lease == request.ID]:
            del self.kvs[key]
            self.revision += 1
            self._tell(rpc.Event(type=rpc.Event.DELETE, kv=rpc.KeyValue(key=key, mod_revision=self.revision)))

    def _tell(self, event: Any) -> None:
        for stream in self.watches:
            if event.kv.key == b"/shoal/leader":
                stream.push(rpc.WatchResponse(header=rpc.ResponseHeader(revision=self.revision), events=[event]))


class Link:
    """Between one replica and one shard."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.loses = 0.1
        self.held: list[Callable[[], None]] | None = None

    def carry(self, deliver: Callable[[], None], delay: float) -> None:
        """Later, and when the link does not hang."""

        def arrive() -> None:
            if self.held is None:
                deliver()
            else:
                self.held.append(deliver)

        asyncio.get_running_loop().call_later(delay, arrive)

    def release(self) -> None:
        held, self.held = self.held or [], None
        for deliver in held:
            deliver()

    def delay(self) -> float:
        return self.rng.choice([0.001, 0.01, 0.5, 3.0] if self.loses else [0.001])


class Stream:
    """A watch; what it brings stays in order."""

    def __init__(self, etcd: Etcd, link: Link) -> None:
        self._etcd = etcd
        self._link = link
        self._came: asyncio.Queue[Any] = asyncio.Queue()

    async def write(self, request: Any) -> None:
        def create() -> None:
            self._etcd.watches.append(self)
            self.push(rpc.WatchResponse(header=rpc.ResponseHeader(revision=self._etcd.revision), created=True))

        self._link.carry(create, 0.001)

    def push(self, response: Any) -> None:
        self._link.carry(lambda: self._came.put_nowait(response), 0.002)

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Any:
        return await self._came.get()

    def cancel(self) -> None:
        if self in self._etcd.watches:
            self._etcd.watches.remove(self)


class Shard(EtcdShard):
    """The real one, above a model of the network."""

    def __init__(self, etcd: Etcd, link: Link) -> None:
        self.name, self.deadline_s, self.fence, self._access = f"etcd {etcd.number}", DEADLINE_S, None, EtcdAccess()
        self._etcd = etcd
        self._link = link
        self._kv = SimpleNamespace(Range=etcd.range, Txn=etcd.txn)
        self._leases = SimpleNamespace(LeaseGrant=etcd.grant, LeaseRevoke=etcd.revoke)
        self._writes = GroupCommit(self._commit)

    async def _call(self, method: Callable[..., Any], request: Any, *, wait_for_ready: bool = True) -> Any:
        answer = asyncio.get_running_loop().create_future()
        link = self._link

        def answered(result: Any) -> None:
            if not answer.done():
                answer.set_result(result)

        def serve() -> None:
            try:
                result = method(request)
            except MetadataStoreError as error:
                result = error
            if link.rng.random() >= link.loses:
                link.carry(lambda: answered(result), link.delay())

        if link.rng.random() >= link.loses:
            link.carry(serve, link.delay())
        try:
            async with asyncio.timeout(self.deadline_s):
                result = await answer
        except TimeoutError:
            raise MetadataStoreError(self.unanswered()) from None
        if isinstance(result, MetadataStoreError):
            raise result
        return result

    async def refresh_lease(self, lease_id: int) -> bool:
        return bool(await self._call(self._etcd.refresh, lease_id))

    def watch(self) -> Any:
        return Stream(self._etcd, self._link)

    def unanswered(self) -> str:
        return f"{self.name} did not answer"


class Election:
    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.etcds = [Etcd(number) for number in range(SHARDS)]
        self.links = [[Link(self.rng) for _ in range(SHARDS)] for _ in range(REPLICAS)]
        #: When each began to lead, by epoch.
        self.began: dict[int, float] = {}

    async def replica(self, number: int) -> None:
        """One process after the other."""
        loop = asyncio.get_running_loop()
        while True:
            shards = [Shard(etcd, link) for etcd, link in zip(self.etcds, self.links[number], strict=True)]
            leadership = await campaign(shards, str(number), TTL_S)
            assert leadership.epoch not in self.began, "two led in one epoch"
            self.began[leadership.epoch] = loop.time()
            lost = asyncio.ensure_future(leadership.lost())
            writers = [asyncio.ensure_future(self.write(shard, leadership)) for shard in shards]
            try:
                await asyncio.wait([lost], timeout=self.rng.choice([5.0, 60.0, None]))
                if self.rng.random() < 0.5:
                    await leadership.resign()
            finally:
                # From here on it is dead: what it has sent may still arrive.
                ended = [lost, *writers, leadership._refreshing]
                for task in ended:
                    task.cancel()
                await asyncio.wait(ended)

    async def write(self, shard: Shard, leadership: Leadership) -> None:
        number = 0
        while True:
            number += 1
            try:
                await shard.put(f"/data/{number % 3}", b"%d" % leadership.epoch, None, 0)
            except MetadataStoreError:
                await asyncio.sleep(0.1)
            await asyncio.sleep(self.rng.choice([0.0, 0.2, 2.0]))

    async def disturb(self) -> None:
        """Links hang for a while, alone or all of a replica or of a shard."""
        links = [(number, shard) for number in range(REPLICAS) for shard in range(SHARDS)]
        for _ in range(40):
            number, shard = self.rng.choice(links)
            kind = self.rng.choice(["link", "replica", "shard"])
            hung = [
                self.links[n][s]
                for n, s in links
                if ((kind != "shard" and n == number) or kind == "shard") and (kind == "replica" or s == shard)
            ]
            for link in hung:
                link.held = link.held or []
            await asyncio.sleep(self.rng.choice([0.5, 4.0, 8.0, 70.0]))
            for link in hung:
                link.release()
            await asyncio.sleep(self.rng.choice([0.0, 1.0, 10.0]))

    async def run(self) -> None:
        replicas = [asyncio.ensure_future(self.replica(number)) for number in range(REPLICAS)]
        disturbing = asyncio.ensure_future(self.disturb())
        await asyncio.wait([disturbing, *replicas], return_when=asyncio.FIRST_COMPLETED)
        for task in (disturbing, *replicas):
            if task.done():
                task.result()
        for links in self.links:
            for link in links:
                link.loses = 0.0
        calm = asyncio.get_running_loop().time()
        await asyncio.sleep(300)
        for task in replicas:
            task.cancel()
        await asyncio.wait(replicas)
        for etcd in self.etcds:
            assert max(at for at, _ in etcd.taken) > calm, "nobody leads although all is well"
            epochs = [epoch for _, epoch in etcd.taken]
            assert epochs == sorted(epochs), "one that was followed has written"
            for at, epoch in etcd.taken:
                assert all(at <= began for later, began in self.began.items() if later > epoch)


@walks(6)
def test_any_order(seed: int) -> None:
    election = Election(seed)
    virtual_time.run(election.run())
    assert len(election.began) > 3
