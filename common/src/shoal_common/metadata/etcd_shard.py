"""One etcd cluster, as one shard of the metadata store.

The stubs of ``aetcd`` run on a channel of ours. Its own client was rejected: its watches do not tell the revision from
which to resume and queue without bound, its transactions hide the response header, and it opens insecure channels only.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn

import grpc
import grpc.aio
from aetcd import rpc

from shoal_common.metadata.etcd_fence import Fence
from shoal_common.metadata.group_commit import GroupCommit
from shoal_common.metadata.store import (
    Entry,
    LeaseExpired,
    MetadataStoreError,
    RevisionConflict,
    StoreRefused,
    check_value,
)
from shoal_common.rpc.target import grpc_target
from shoal_common.tls import ServerTls

#: Entries a scan reads with one request.
SCAN_PAGE = 1_000
#: Keys and headers around a value in a request, about.
_OPERATION_BYTES = 100
#: Between two tries to reach a shard at the start, in seconds.
PROBE_PAUSE_S = 1.0
#: Between the members of one etcd cluster in a setting; commas are between the shards.
MEMBER_SEPARATOR = "+"

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
    # Where this is longer, gRPC waits for it instead: a minute by default.
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
]
#: Beginnings of what etcd says about credentials, with a status that it also has for other things.
_CREDENTIALS_REFUSED = (
    "etcdserver: user name is empty",
    "etcdserver: authentication failed",
    "etcdserver: authentication is not enabled",
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EtcdAccess:
    """What etcd asks of its clients."""

    #: Empty = its authentication is off, or goes by the client's certificate.
    user: str = ""
    password: str = field(default="", repr=False)
    tls: ServerTls | None = None


class _Operation(NamedTuple):
    """A write of one key."""

    key: bytes
    #: None = delete it.
    value: bytes | None
    expected_revision: int | None

    def add_to(self, operations: Any, lease_id: int) -> None:
        """As a ``RequestOp``, made in place: copying messages costs more than filling them."""
        operation = operations.add()
        if self.expected_revision is not None:
            # A transaction inside the group's own: when the comparison fails, nothing else does.
            transaction = operation.request_txn
            compare = transaction.compare.add()
            compare.target, compare.result = rpc.Compare.MOD, rpc.Compare.EQUAL
            compare.key, compare.mod_revision = self.key, self.expected_revision
            found = transaction.failure.add().request_range
            found.key, found.keys_only = self.key, True
            operation = transaction.success.add()
        if self.value is None:
            operation.request_delete_range.key = self.key
        else:
            put = operation.request_put
            put.key, put.value, put.lease = self.key, self.value, lease_id


class EtcdShard:
    """Belongs to the event loop in which it is made. Connects at the first call.

    ``endpoints`` is one ``host:port``, or those of several members of one cluster, as ``host:port+host:port``. Every
    call waits for a connection and an answer for ``deadline_s`` seconds in all.
    """

    def __init__(self, endpoints: str, deadline_s: float, access: EtcdAccess) -> None:
        self.name = f"etcd at {endpoints}"
        self.deadline_s = deadline_s
        #: Set when this process leads: writes then compare its epoch.
        self.fence: Fence | None = None
        self._access = access
        #: Metadata of every call: the token that etcd has given for the password.
        self._token: tuple[tuple[str, str], ...] = ()
        members = endpoints.split(MEMBER_SEPARATOR)
        if access.tls is None:
            self._channel = grpc.aio.insecure_channel(grpc_target(members), options=_OPTIONS)
        else:
            server_name = access.tls.server_name or members[0].rpartition(":")[0].strip("[]")
            options = [*_OPTIONS, ("grpc.ssl_target_name_override", server_name)]
            credentials = access.tls.channel_credentials()
            self._channel = grpc.aio.secure_channel(grpc_target(members), credentials, options=options)
        self._auth = rpc.AuthStub(self._channel)
        self._kv = rpc.KVStub(self._channel)
        self._leases = rpc.LeaseStub(self._channel)
        self._watches = rpc.WatchStub(self._channel)
        self._writes: GroupCommit[_Operation, tuple[int, Any]] = GroupCommit(self._commit)
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
        check_value(key, value)
        revision, _ = await self._write(key, value, expected_revision, lease_id)
        return revision

    async def delete(self, key: str, expected_revision: int | None) -> bool:
        _, answer = await self._write(key, None, expected_revision, 0)
        return bool(answer.response_delete_range.deleted)

    async def grant_lease(self, lease_id: int, ttl_s: float) -> None:
        await self._call(self._leases.LeaseGrant, rpc.LeaseGrantRequest(ID=lease_id, TTL=max(1, math.ceil(ttl_s))))

    async def refresh_lease(self, lease_id: int) -> bool:
        """False = it is gone."""
        call = self._leases.LeaseKeepAlive(
            iter([rpc.LeaseKeepAliveRequest(ID=lease_id)]),
            timeout=self.deadline_s,
            wait_for_ready=True,
            metadata=self._token,
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

    async def transaction(self, request: Any) -> Any:
        """A ``TxnRequest`` by itself, which no fence holds back: for the shard's own records."""
        return await self._call(self._kv.Txn, request)

    async def reached(self, within_s: float) -> None:
        """Returns once the shard answers. Raises: MetadataStoreError after ``within_s``, StoreRefused."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within_s
        told = False
        while True:
            try:
                # Fails at the first lost connection, and so tells why; the other calls wait for the next one.
                await self._call(self._kv.Range, rpc.RangeRequest(key=b"/shoal/", keys_only=True), wait_for_ready=False)
                return
            except StoreRefused:
                raise
            except MetadataStoreError as error:
                if loop.time() + PROBE_PAUSE_S >= deadline:
                    raise MetadataStoreError(
                        f"gave up after {within_s:g} s: {error}. Is it running, and are address and TLS settings right?"
                    ) from error
                if not told:
                    _log.warning("waiting for the metadata store, %g s at most: %s", within_s, error)
                    told = True
            await asyncio.sleep(PROBE_PAUSE_S)

    def watch(self) -> Any:
        """A bidirectional stream of ``WatchRequest`` and ``WatchResponse`` without deadline."""
        return self._watches.Watch(wait_for_ready=True, metadata=self._token)

    async def authenticate(self) -> None:
        """Exchange the password for a new token, if there is one. Raises: MetadataStoreError, StoreRefused."""
        if self._access.user:
            request = rpc.AuthenticateRequest(name=self._access.user, password=self._access.password)
            try:
                answer = await self._auth.Authenticate(request, timeout=self.deadline_s, wait_for_ready=True)
            except grpc.aio.AioRpcError as error:
                self._raise(error)
            self._token = (("token", answer.token),)

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
        if _credentials_refused(error):
            user = f"the user {self._access.user!r}" if self._access.user else "a client without user and password"
            return f"{self.name} refuses {user}: {details}. Check the settings of its user and password"
        return f"{self.name} refused: {code.name}: {details}"

    async def _write(
        self, key: str, value: bytes | None, expected_revision: int | None, lease_id: int
    ) -> tuple[int, Any]:
        if self.fence is not None:
            self.fence.check()
        operation = _Operation(encoded(key), value, expected_revision)
        size = len(value or b"") + _OPERATION_BYTES
        try:
            async with asyncio.timeout(self.deadline_s):
                revision, answer = await self._writes.write(operation.key, operation, size, lease_id)
        except TimeoutError:
            raise MetadataStoreError(self.unanswered()) from None
        if expected_revision is not None:
            if not answer.response_txn.succeeded:
                found = answer.response_txn.responses[0].response_range.kvs
                raise RevisionConflict(key, expected_revision, found[0].mod_revision if found else 0)
            answer = answer.response_txn.responses[0]
        return revision, answer

    async def _commit(self, operations: list[_Operation], lease_id: int) -> list[tuple[int, Any]]:
        fence = self.fence
        request = rpc.TxnRequest()
        for operation in operations:
            operation.add_to(request.success, lease_id)
        if fence is not None:
            request.compare.append(fence.comparison)
        try:
            answer = await self._call(self._kv.Txn, request)
        except MetadataStoreError as error:
            if lease_id and _not_found(error.__cause__):
                raise LeaseExpired(lease_id) from error
            raise
        if fence is not None and not answer.succeeded:
            fence.fall(f"another one has taken over, as {self.name} tells")
            fence.check()
        return [(answer.header.revision, response) for response in answer.responses]

    async def _call(self, method: Callable[..., Any], request: Any, *, wait_for_ready: bool = True) -> Any:
        if self._access.user and not self._token:
            await self.authenticate()
        try:
            return await self._once(method, request, wait_for_ready)
        except grpc.aio.AioRpcError as error:
            if not (self._access.user and _credentials_refused(error)):
                self._raise(error)
        # Tokens end: after five minutes without a call, and with the server.
        await self.authenticate()
        try:
            return await self._once(method, request, wait_for_ready)
        except grpc.aio.AioRpcError as error:
            self._raise(error)

    async def _once(self, method: Callable[..., Any], request: Any, wait_for_ready: bool) -> Any:
        call = method(request, timeout=self.deadline_s, wait_for_ready=wait_for_ready, metadata=self._token)
        self._open.add(call)
        try:
            return await call
        finally:
            self._open.discard(call)

    def _raise(self, error: grpc.aio.AioRpcError) -> NoReturn:
        kind = StoreRefused if _credentials_refused(error) else MetadataStoreError
        raise kind(self.explain(error)) from error


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


def _credentials_refused(error: grpc.aio.AioRpcError) -> bool:
    if error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return True
    return (error.details() or "").startswith(_CREDENTIALS_REFUSED)
