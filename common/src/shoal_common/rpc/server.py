"""The gRPC server of every service: the token on each call, errors mapped by one table, health, size limits.

A handler raises a `ServiceError`, the caller gets its status and text; anything else it raises is a defect and becomes
INTERNAL. Handlers of streamed answers are async generators. The standard health service is answered
without a token, because container runtimes ask it.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import structlog
from grpc_health.v1 import health, health_pb2_grpc  # type: ignore[import-untyped]

from shoal_common import auth
from shoal_common.errors import ERROR_METADATA_KEY, InternalError, ServiceError, Unauthenticated
from shoal_common.tls import Tls

MAX_MESSAGE_BYTES = 128 * 1024 * 1024

_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Two services on one port would each get some of the calls.
    ("grpc.so_reuseport", 0),
    # Clients ping every 10 s, also between calls; the default takes that for an attack.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
]
_HEALTH_METHODS = "/grpc.health.v1.Health/"

_log = structlog.get_logger()


def create_server(token: str) -> grpc.aio.Server:
    """A server that refuses calls without ``token``; call it in the event loop that will serve."""
    if not token:
        raise ValueError("the token is empty: every service needs the cluster's token")
    server = grpc.aio.server(interceptors=[_Guard(token)], options=_OPTIONS)
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    return server


async def serve(server: grpc.aio.Server, host: str, port: int, *, tls: Tls | None = None) -> int:
    """Start listening; returns the bound port. With ``tls`` only to processes of the cluster's authority.

    Raises: OSError when the address cannot be bound.
    """
    address = join_address(host, port)
    try:
        if tls is None:
            bound = server.add_insecure_port(address)
        else:
            bound = server.add_secure_port(address, tls.server_credentials())
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}: it is in use, or not an address of this host") from error
    await server.start()
    return bound


def join_address(host: str, port: int) -> str:
    """``host:port``, with the brackets that an IPv6 address needs."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Guard(grpc.aio.ServerInterceptor):
    """Around every handler: the token, the error table, one log line for each failed call."""

    def __init__(self, token: str) -> None:
        self._expected = (auth.SCHEME + token).encode()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = await continuation(details)
        method: str = details.method
        if handler is None or method.startswith(_HEALTH_METHODS):
            return handler
        authorized = self._authorized(details)
        kind = ("stream" if handler.request_streaming else "unary") + (
            "_stream" if handler.response_streaming else "_unary"
        )
        behavior = getattr(handler, kind)

        async def answer(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            async with _guarded(method, authorized, context):
                return await behavior(request, context)

        async def answers(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            async with _guarded(method, authorized, context):
                async for message in behavior(request, context):
                    yield message

        make = getattr(grpc, f"{kind}_rpc_method_handler")
        guarded: grpc.RpcMethodHandler[Any, Any] = make(
            answers if handler.response_streaming else answer,
            handler.request_deserializer,
            handler.response_serializer,
        )
        return guarded

    def _authorized(self, details: grpc.HandlerCallDetails) -> bool:
        given = next((value for key, value in details.invocation_metadata if key == auth.METADATA_KEY), "")
        return hmac.compare_digest(given if isinstance(given, bytes) else given.encode(), self._expected)


@asynccontextmanager
async def _guarded(method: str, authorized: bool, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[None]:
    started = time.monotonic()
    try:
        if not authorized:
            raise Unauthenticated(
                "wrong or missing cluster token: use the token of this cluster's head "
                f"(its ~/{auth.DEFAULT_TOKEN_PATH}), or name its file in {auth.TOKEN_PATH_VARIABLE}"
            )
        yield
    except ServiceError as error:
        # An answer like "not found" is ordinary; a stranger at the door is worth a look.
        say = _log.warning if isinstance(error, Unauthenticated) else _log.info
        await _fail(method, context, started, error, say)
    except grpc.aio.AbortError:
        raise
    except Exception as defect:
        text = f"{method} failed in the service: {type(defect).__name__}: {defect}"
        await _fail(method, context, started, InternalError(text), _log.exception)


async def _fail(
    method: str,
    context: grpc.aio.ServicerContext[Any, Any],
    started: float,
    error: ServiceError,
    say: Callable[..., Any],
) -> None:
    say(
        "rpc_failed",
        method=method,
        peer=context.peer(),
        status=error.status,
        error=type(error).__name__,
        detail=str(error),
        elapsed_ms=round((time.monotonic() - started) * 1000, 1),
    )
    await context.abort(
        grpc.StatusCode[error.status],
        str(error),
        trailing_metadata=((ERROR_METADATA_KEY, type(error).__name__),),
    )
