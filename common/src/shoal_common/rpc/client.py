"""gRPC channels to a service: the token on each call, deadlines, quick reconnection, and errors by the one table.

Stubs raise ``grpc.RpcError`` as usual; `service_errors` turns it into the `ServiceError` that the service raised::

    stub = SchedulerServiceStub(aio_channel(address, token))
    with service_errors():
        await stub.PickNode(request)
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar, overload

import grpc
import grpc.aio

from shoal_common import auth
from shoal_common.errors import ERROR_METADATA_KEY, ServiceError, Unavailable, error_class
from shoal_common.rpc.retry import USUAL, RetryPolicy
from shoal_common.rpc.target import grpc_target
from shoal_common.tls import Tls

#: Deadline of a unary call that names none, in seconds; above the 30 s for which a service may hold an answer back.
#: Streams have none unless the caller says so: a subscription lasts as long as its process.
DEFAULT_DEADLINE_S = 40.0

_OPTIONS = [
    ("grpc.max_receive_message_length", 128 * 1024 * 1024),
    ("grpc.max_send_message_length", 128 * 1024 * 1024),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # A name with an address for each replica is looked up again this soon when none of them answers.
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # Where this is longer, gRPC waits for it instead: a minute by default.
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # The cluster's addresses are not for a web proxy that the environment may name.
    ("grpc.enable_http_proxy", 0),
    # Otherwise a new channel inherits the backoff of an earlier one to the same address.
    ("grpc.use_local_subchannel_pool", 1),
]

#: gRPC itself repeats a call that breaks, four times at most, and meanwhile waits for a connection.
_REPEAT = {
    "maxAttempts": 5,
    "initialBackoff": "0.1s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2,
    # A server that stops cancels what is under way. Who cancels its own call is not meant: nothing repeats that.
    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
}
_PATIENT = [
    (
        "grpc.service_config",
        json.dumps({"methodConfig": [{"name": [{}], "waitForReady": True, "retryPolicy": _REPEAT}]}),
    ),
    # A request that does not fit is not repeated.
    ("grpc.per_rpc_retry_buffer_size", 128 * 1024 * 1024),
]
#: A Unix socket is the way into a client's tunnel, which notices a dead connection itself, and outlives it.
_TUNNELLED = [("grpc.keepalive_time_ms", 2**31 - 1)]

T = TypeVar("T")


def aio_channel(
    address: str,
    token: str,
    deadline_s: float = DEFAULT_DEADLINE_S,
    *,
    tls: Tls | None = None,
    patient: bool = False,
) -> grpc.aio.Channel:
    """A channel for the running event loop; ``await channel.close()`` ends it. Connects at the first call.

    ``address`` may be a list with commas: whichever answers is used. ``patient``: calls wait for a connection, and are
    repeated when it breaks, within their deadline; for a service that fails over and whose calls are idempotent.
    """
    prepare = _Prepare(token, deadline_s)
    interceptors = [kind(prepare) for kind in (_UnaryUnary, _UnaryStream, _StreamUnary, _StreamStream)]
    target, options = grpc_target(address.split(",")), _options(address, tls, patient)
    if tls is None:
        return grpc.aio.insecure_channel(target, options=options, interceptors=interceptors)
    return grpc.aio.secure_channel(target, tls.channel_credentials(), options=options, interceptors=interceptors)


def sync_channel(
    address: str,
    token: str,
    deadline_s: float = DEFAULT_DEADLINE_S,
    *,
    tls: Tls | None = None,
    patient: bool = False,
) -> grpc.Channel:
    """A channel for any thread; ``channel.close()`` ends it. Otherwise as `aio_channel`."""
    target, options = grpc_target(address.split(",")), _options(address, tls, patient)
    if tls is None:
        channel = grpc.insecure_channel(target, options=options)
    else:
        channel = grpc.secure_channel(target, tls.channel_credentials(), options=options)
    return grpc.intercept_channel(channel, _Sync(_Prepare(token, deadline_s)))


def _options(address: str, tls: Tls | None, patient: bool) -> list[tuple[str, Any]]:
    tunnelled = _TUNNELLED if address.startswith("unix:") else ()
    return [*_OPTIONS, *(tls.channel_options if tls else ()), *(_PATIENT if patient else ()), *tunnelled]


@contextmanager
def service_errors() -> Iterator[None]:
    """Raises: the `ServiceError` that the service answered with, in place of ``grpc.RpcError``."""
    try:
        yield
    except grpc.RpcError as error:
        raise service_error(error) from error


def service_error(error: grpc.RpcError) -> ServiceError:
    """The service's error behind a failed call; a service that is not reached is `Unavailable`."""
    trailing: Any = error.trailing_metadata() or ()
    name = next((value for key, value in trailing if key == ERROR_METADATA_KEY), "")
    return error_class(error.code().name, str(name))(error.details() or "")


@overload
async def retrying(
    call: Callable[[], Awaitable[T]],
    policy: RetryPolicy = ...,
    *,
    on: tuple[type[ServiceError], ...] = ...,
    failed: Callable[[ServiceError], None] | None = ...,
    rng: random.Random | None = ...,
) -> T: ...


@overload
async def retrying(
    call: Callable[[], Awaitable[T]],
    policy: RetryPolicy = ...,
    *,
    until: Callable[[], bool],
    on: tuple[type[ServiceError], ...] = ...,
    failed: Callable[[ServiceError], None] | None = ...,
    rng: random.Random | None = ...,
) -> T | None: ...


async def retrying(
    call: Callable[[], Awaitable[T]],
    policy: RetryPolicy = USUAL,
    *,
    until: Callable[[], bool] = lambda: False,
    on: tuple[type[ServiceError], ...] = (Unavailable,),
    failed: Callable[[ServiceError], None] | None = None,
    rng: random.Random | None = None,
) -> T | None:
    """Repeat an idempotent call within ``policy`` while it raises one of ``on``; other errors end it at once.

    ``call`` raises service errors (see `service_errors`). ``until`` is asked before each try: once it is true nothing
    is left to do, and None is returned. ``failed`` is told of each error after which there is another try.

    Raises: what the last try raised.
    """
    pauses = policy.pauses(rng or random.Random())
    while not until():
        try:
            return await call()
        except on as error:
            pause = next(pauses, None)
            if pause is None:
                raise
            if failed is not None:
                failed(error)
            await asyncio.sleep(pause)
    return None


class _Details(NamedTuple):
    """One class for both of grpc's kinds: they read these attributes only."""

    method: Any
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any = None


class _Prepare:
    def __init__(self, token: str, deadline_s: float) -> None:
        self._authorization = (auth.METADATA_KEY, auth.SCHEME + token)
        self._deadline_s = deadline_s

    def unary(self, details: Any) -> Any:
        return self._with_token(details, self._deadline_s if details.timeout is None else details.timeout)

    def stream(self, details: Any) -> Any:
        return self._with_token(details, details.timeout)

    def _with_token(self, details: Any, timeout: float | None) -> Any:
        metadata = grpc.aio.Metadata(*(details.metadata or ()), self._authorization)
        return _Details(details.method, timeout, metadata, details.credentials, details.wait_for_ready)


class _Prepared:
    def __init__(self, prepare: _Prepare) -> None:
        self._prepare = prepare


# grpc.aio registers an interceptor for one kind of call only, hence four classes.
class _UnaryUnary(_Prepared, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return await continuation(self._prepare.unary(details), request)


class _UnaryStream(_Prepared, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return await continuation(self._prepare.stream(details), request)


class _StreamUnary(_Prepared, grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(self, continuation: Any, details: Any, requests: Any) -> Any:
        return await continuation(self._prepare.stream(details), requests)


class _StreamStream(_Prepared, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        return await continuation(self._prepare.stream(details), requests)


class _Sync(
    _Prepared,
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(self._prepare.unary(details), request)

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(self._prepare.stream(details), request)

    def intercept_stream_unary(self, continuation: Any, details: Any, requests: Any) -> Any:
        return continuation(self._prepare.stream(details), requests)

    def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        return continuation(self._prepare.stream(details), requests)
