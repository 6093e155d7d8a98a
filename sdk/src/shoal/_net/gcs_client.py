"""The GCS as drivers and workers see it: gRPC, opened when first needed."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shoal import exceptions

if TYPE_CHECKING:
    import grpc

    from shoal_common.tls import Tls
    from shoal_proto.v1 import gcs_pb2

#: Seconds that one control call may take before it fails with a clear error.
DEADLINE_S = 60.0
#: One long poll for an actor's state, in seconds.
POLL_S = 30.0
#: One question without a session, in seconds.
ASK_DEADLINE_S = 5.0
#: The same where several GCS are listed: one that dies is replaced in the meantime.
ASK_SEVERAL_DEADLINE_S = 30.0

#: Refusals of the GCS, as ``RpcError.rpc_code``: gRPC's numbers, which need no import of grpc.
INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS = 3, 5, 6
_NO_ANSWER = (4, 14)  # DEADLINE_EXCEEDED, UNAVAILABLE


def ask(address: str, token: str, service: str, method: str, request: Any) -> Any:
    """One call where there is no session; it waits for a standby to take over where ``address`` lists several GCS.

    Raises: ConnectionError when no GCS answers there, AuthenticationError for a wrong token.
    """
    import grpc

    from shoal_common.rpc.client import sync_channel
    from shoal_common.tls import Tls, advice
    from shoal_proto.v1 import gcs_pb2_grpc

    tls = Tls.from_environ(os.environ)
    several = "," in address
    with sync_channel(address, token, tls=tls, patient=several) as channel:
        stub = getattr(gcs_pb2_grpc, f"{service}ServiceStub")(channel)
        try:
            return getattr(stub, method)(request, timeout=ASK_SEVERAL_DEADLINE_S if several else ASK_DEADLINE_S)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                raise exceptions.AuthenticationError(
                    f"The cluster at {address} refused this driver: {error.details()}."
                ) from None
            raise ConnectionError(
                f"Shoal could not connect to a cluster at {address}: {error.details()}. Check that it runs and "
                f"is reachable. {advice(tls)}"
            ) from None


class GcsClient:
    """Blocking stubs with deadlines; imports grpc on first use (0.14 s that ``import shoal`` must not pay)."""

    def __init__(self, address: str, token: str, tls: Tls | None = None, *, patience_s: float = 0.0) -> None:
        """``patience_s``: the way to the GCS may be cut for so long while calls wait, so their deadlines are later."""
        self.address = address
        self._token = token
        self._tls = tls
        self._patience_s = patience_s
        self._lock = threading.Lock()
        #: Set when this process's node is gone: what every call fails with then.
        self._node_error: Exception | None = None
        self._channel: grpc.Channel | None = None
        self._stubs: dict[str, Any] = {}

    def _stub(self, name: str) -> Any:
        with self._lock:
            if self._node_error is not None:
                raise self._node_error.with_traceback(None)
            if self._channel is None:
                from shoal_common.rpc.client import sync_channel

                self._channel = sync_channel(self.address, self._token, tls=self._tls, patient=True)
            stub = self._stubs.get(name)
            if stub is None:
                from shoal_proto.v1 import gcs_pb2_grpc

                stub = self._stubs[name] = getattr(gcs_pb2_grpc, f"{name}ServiceStub")(self._channel)
            return stub

    def call(self, service: str, method: str, request: Any, timeout: float = DEADLINE_S) -> Any:
        """One unary call, which waits while a standby takes over from a GCS that died.

        Raises: RpcError (it refuses, or does not answer), LocalRayletDiedError (this node is gone).
        """
        import grpc

        try:
            return getattr(self._stub(service), method)(request, timeout=timeout + self._patience_s)
        except (grpc.RpcError, ValueError) as error:
            if self._node_error is not None:
                raise self._node_error.with_traceback(None) from error
            if isinstance(error, ValueError):
                raise
            code, text = error.code().value[0], str(error.details())
            if code in _NO_ANSWER:
                text = (
                    f"The GCS at {self.address} did not answer {method}: {text}. Ask again; `shoal status` tells more."
                )
            raise exceptions.RpcError(text, code) from None

    def call_async(
        self,
        service: str,
        method: str,
        request: Any,
        done: Callable[[Any, Exception | None], None],
        timeout: float = DEADLINE_S,
    ) -> None:
        """One unary call; ``done(response, error)`` runs in a thread of gRPC's."""
        future = getattr(self._stub(service), method).future(request, timeout=timeout + self._patience_s)

        def finished(call: Any) -> None:
            if call.cancelled():
                return  # the channel was closed: nobody waits any more
            error = call.exception()
            done(None if error is not None else call.result(), error)

        future.add_done_callback(finished)

    def subscribe(self, patterns: list[str]) -> Any:
        """The stream of matching events; ``cancel()`` ends it. It breaks with its GCS: what happens before the next
        one is missed. Raises: LocalRayletDiedError."""
        from shoal_proto.v1 import gcs_pb2

        return self._stub("Event").Subscribe(gcs_pb2.SubscribeRequest(patterns=patterns))

    def wait_actor(
        self,
        actor_id: bytes,
        known_version: int,
        done: Callable[[gcs_pb2.WaitActorResponse | None, Exception | None], None],
    ) -> None:
        from shoal_proto.v1 import gcs_pb2

        request = gcs_pb2.WaitActorRequest(actor_id=actor_id, known_version=known_version, wait_ms=int(POLL_S * 1000))
        self.call_async("Actor", "WaitActor", request, done, timeout=POLL_S + 30)

    def abandon(self, error: Exception) -> None:
        """This process's node is gone: calls fail at once with ``error``, those under way too."""
        self._node_error = error
        self.close()

    def close(self) -> None:
        with self._lock:
            if self._channel is not None:
                self._channel.close()
                self._channel = None
                self._stubs.clear()
