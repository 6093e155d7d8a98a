"""One etcd cluster, as one shard of the metadata store.

The stubs of ``aetcd`` run on a channel of ours. Its own client was rejected: its watches do not tell the revision from
which to resume and queue without bound, its transactions hide the response header, and it opens insecure channels only.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any, NoReturn

import grpc
import grpc.aio
from aetcd import rpc

from shoal_common.metadata.group_commit import GroupCommit
from shoal_common.metadata.store import Entry, LeaseExpired, MetadataStoreError, RevisionConflict

#: Entries a scan reads with one request.
SCAN_PAGE = 1_000
#: Keys and headers around a value in a request, about.
_OPERATION_BYTES = 100

_OPTIONS = [
    # The server bounds what it takes (--max-request-bytes); a page of a scan is bounded by its number of entries.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # A watch of a hung server ends after 15 s instead of never. More often than every 5 s etcd takes for an attack.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
]


class EtcdShard:
    """Belongs to the event loop in which it is made. Connects at the first call.

    ``endpoints`` is one ``host:port``, or several ``address:port`` of one cluster with commas between them: these have
    to be IP addresses. Every call waits for a connection and an answer for ``deadline_s`` seconds in all.
    """

    def __init__(self, endpoints: str, deadline_s: float) -> None:
        self.name = f"etcd at {endpoints}"
        self.deadline_s = deadline_s
        target = f"ipv4:{endpoints}" if "," in endpoints else endpoints
        self._channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
        self._kv = rpc.KVStub(self._channel)
        self._leases = rpc.LeaseStub(self._channel)
        self._watches = rpc.WatchStub(self._channel)
        self._writes: GroupCommit[Any, tuple[int, Any]] = GroupCommit(self._commit)
        #: Writes and calls that have begun.
        self._open: set[Any] = set()

    async def get(self, key: str) -> Entry | None:
        answer = await self._call(self._kv.Range, rpc.RangeRequest(key=encoded(key)))
        return _entry(answer.kvs[0]) if answer.kvs else None

    async def scan(self, prefix: str, *, keys_only: bool = False) -> list[Entry]:
        """Sorted by key. Every entry is as it was at some time during the call."""
        start, end = prefix_range(prefix)
        entries: list[Entry] = []
        while True:
            request = rpc.RangeRequest(key=start, range_end=end, limit=SCAN_PAGE, keys_only=keys_only)
            answer = await self._call(self._kv.Range, request)
            entries += map(_entry, answer.kvs)
            if not answer.more:
                return entries
            start = answer.kvs[-1].key + b"\0"

    async def put(self, key: str, value: bytes, expected_revision: int | None, lease_id: int) -> int:
        put = rpc.RequestOp(request_put=rpc.PutRequest(key=encoded(key), value=value, lease=lease_id))
        revision, _ = await self._write(key, put, len(value), expected_revision, lease_id)
        return revision

    async def delete(self, key: str, expected_revision: int | None) -> bool:
        delete = rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=encoded(key)))
        _, answer = await self._write(key, delete, 0, expected_revision, 0)
        return bool(answer.response_delete_range.deleted)

    async def grant_lease(self, lease_id: int, ttl_s: float) -> None:
        await self._call(self._leases.LeaseGrant, rpc.LeaseGrantRequest(ID=lease_id, TTL=max(1, math.ceil(ttl_s))))

    async def refresh_lease(self, lease_id: int) -> bool:
        """False = it is gone."""
        call = self._leases.LeaseKeepAlive(
            iter([rpc.LeaseKeepAliveRequest(ID=lease_id)]), timeout=self.deadline_s, wait_for_ready=True
        )
        self._open.add(call)
        try:
            answer = await call.read()
            if answer is grpc.aio.EOF:
                raise MetadataStoreError(f"{self.name} did not say whether it has refreshed lease {lease_id}")
            return bool(answer.TTL > 0)  # no error tells it, only this
        except grpc.aio.AioRpcError as error:
            self._raise(error)
        finally:
            call.cancel()
            self._open.discard(call)

    async def revoke_lease(self, lease_id: int) -> None:
        try:
            await self._call(self._leases.LeaseRevoke, rpc.LeaseRevokeRequest(ID=lease_id))
        except MetadataStoreError as error:
            if not _not_found(error.__cause__):
                raise

    def watch(self) -> Any:
        """A bidirectional stream of ``WatchRequest`` and ``WatchResponse`` without deadline."""
        return self._watches.Watch(wait_for_ready=True)

    async def close(self) -> None:
        """Finishes what has begun. The caller begins nothing new."""
        await self._writes.close()
        if self._open:
            await asyncio.gather(*(call.code() for call in self._open))
        await self._channel.close()

    def unanswered(self) -> str:
        """Why nothing has come back within the deadline."""
        if self._channel.get_state() is grpc.ChannelConnectivity.READY:
            return f"{self.name} did not answer within {self.deadline_s:g} s: it hangs, is overloaded or has no leader"
        return (
            f"{self.name} could not be reached within {self.deadline_s:g} s: is it running, and is the address right?"
        )

    def explain(self, error: grpc.aio.AioRpcError) -> str:
        code, details = error.code(), error.details()
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return self.unanswered()
        if code is grpc.StatusCode.UNAVAILABLE:
            return f"{self.name} is unavailable: {details}"
        return f"{self.name} refused: {code.name}: {details}"

    async def _write(
        self, key: str, operation: Any, size: int, expected_revision: int | None, lease_id: int
    ) -> tuple[int, Any]:
        raw = key.encode()
        if expected_revision is not None:
            # A transaction inside the group's own: when the comparison fails, nothing else does.
            operation = rpc.RequestOp(
                request_txn=rpc.TxnRequest(
                    compare=[
                        rpc.Compare(
                            key=raw,
                            target=rpc.Compare.MOD,
                            result=rpc.Compare.EQUAL,
                            mod_revision=expected_revision,
                        )
                    ],
                    success=[operation],
                    failure=[rpc.RequestOp(request_range=rpc.RangeRequest(key=raw, keys_only=True))],
                )
            )
        try:
            async with asyncio.timeout(self.deadline_s):
                revision, answer = await self._writes.write(raw, operation, size + _OPERATION_BYTES, lease_id)
        except TimeoutError:
            raise MetadataStoreError(self.unanswered()) from None
        if expected_revision is not None:
            if not answer.response_txn.succeeded:
                found = answer.response_txn.responses[0].response_range.kvs
                raise RevisionConflict(key, expected_revision, found[0].mod_revision if found else 0)
            answer = answer.response_txn.responses[0]
        return revision, answer

    async def _commit(self, operations: list[Any], lease_id: int) -> list[tuple[int, Any]]:
        try:
            answer = await self._call(self._kv.Txn, rpc.TxnRequest(success=operations))
        except MetadataStoreError as error:
            if lease_id and _not_found(error.__cause__):
                raise LeaseExpired(lease_id) from error
            raise
        return [(answer.header.revision, response) for response in answer.responses]

    async def _call(self, method: Callable[..., Any], request: Any) -> Any:
        call = method(request, timeout=self.deadline_s, wait_for_ready=True)
        self._open.add(call)
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            self._raise(error)
        finally:
            self._open.discard(call)

    def _raise(self, error: grpc.aio.AioRpcError) -> NoReturn:
        raise MetadataStoreError(self.explain(error)) from error


def encoded(key: str) -> bytes:
    """Raises: ValueError for what etcd takes for a mistake of the whole transaction, and for no valid text."""
    if not key:
        raise ValueError("a key must not be empty")
    return key.encode()


def prefix_range(prefix: str) -> tuple[bytes, bytes]:
    """First key, and the one after the last."""
    raw = prefix.encode()
    # No text ends with the byte 255 in UTF-8, so the last byte has a successor. The zero byte stands for no bound.
    return (raw, raw[:-1] + bytes([raw[-1] + 1])) if raw else (b"\0", b"\0")


def _entry(kv: Any) -> Entry:
    return Entry(kv.key.decode(), kv.value, kv.mod_revision)


def _not_found(error: BaseException | None) -> bool:
    return isinstance(error, grpc.aio.AioRpcError) and error.code() is grpc.StatusCode.NOT_FOUND
