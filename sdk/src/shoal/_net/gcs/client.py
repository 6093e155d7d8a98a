"""The GCS as drivers and workers see it: ``gcs.actors.create(...)``, ``gcs.nodes.list()``, one face for each service.

gRPC and protobuf stay in this package, and are imported when the GCS is first asked: 0.14 s that ``import shoal`` must
not pay. Every method raises what ``errors`` lists, LocalRayletDiedError when this process's node is gone, and
`ClientClosed` after the end of the session.
"""

from __future__ import annotations

import _thread
import ipaddress
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from shoal._net import interrupts
from shoal._net.gcs.errors import ClientClosed, error_of
from shoal.exceptions import RpcError

if TYPE_CHECKING:
    import grpc

    from shoal._net.gcs.actors import Actors
    from shoal._net.gcs.events import Events
    from shoal._net.gcs.groups import Groups
    from shoal._net.gcs.jobs import Functions, Jobs
    from shoal._net.gcs.kv import Kv
    from shoal._net.gcs.named_objects import NamedObjects
    from shoal._net.gcs.nodes import Nodes
    from shoal._net.gcs.objects import Objects
    from shoal._net.gcs.submissions import Submissions
    from shoal_common.tls import Tls

#: Seconds that one control call may take before it fails with a clear error.
DEADLINE_S = 60.0
#: One question without a session, in seconds.
VISIT_DEADLINE_S = 15.0
#: The same where there may be several GCS: one that dies is replaced in the meantime.
VISIT_SEVERAL_DEADLINE_S = 30.0


class GcsClient:
    """Belongs to no thread. Calls wait while a standby takes over from a GCS that died, within their deadlines."""

    def __init__(
        self,
        address: str,
        token: str,
        tls: Tls | None = None,
        *,
        patience_s: float = 0.0,
        deadline_s: float = DEADLINE_S,
        patient: bool = True,
    ) -> None:
        """``patience_s``: the way to the GCS may be cut for so long while calls wait, so their deadlines are later.
        ``patient`` False: a GCS that is not there is an error at once."""
        self.address = address
        self.token = token
        self._tls = tls
        self._patience_s = patience_s
        self._deadline_s = deadline_s
        self._patient = patient
        self._lock = threading.Lock()
        #: Set when this process's node is gone: what every call fails with then.
        self._node_error: Exception | None = None
        self._closed = False
        self._channel: grpc.Channel | None = None
        self._stubs: dict[str, Any] = {}

    @cached_property
    def actors(self) -> Actors:
        with interrupts.uncut():
            from shoal._net.gcs.actors import Actors

        return Actors(self)

    @cached_property
    def events(self) -> Events:
        with interrupts.uncut():
            from shoal._net.gcs.events import Events

        return Events(self)

    @cached_property
    def functions(self) -> Functions:
        with interrupts.uncut():
            from shoal._net.gcs.jobs import Functions

        return Functions(self)

    @cached_property
    def groups(self) -> Groups:
        with interrupts.uncut():
            from shoal._net.gcs.groups import Groups

        return Groups(self)

    @cached_property
    def jobs(self) -> Jobs:
        with interrupts.uncut():
            from shoal._net.gcs.jobs import Jobs

        return Jobs(self)

    @cached_property
    def kv(self) -> Kv:
        from shoal._net.gcs.kv import Kv

        return Kv(self)

    @cached_property
    def named_objects(self) -> NamedObjects:
        with interrupts.uncut():
            from shoal._net.gcs.named_objects import NamedObjects

        return NamedObjects(self)

    @cached_property
    def nodes(self) -> Nodes:
        with interrupts.uncut():
            from shoal._net.gcs.nodes import Nodes

        return Nodes(self)

    @cached_property
    def objects(self) -> Objects:
        with interrupts.uncut():
            from shoal._net.gcs.objects import Objects

        return Objects(self)

    @cached_property
    def submissions(self) -> Submissions:
        from shoal._net.gcs.submissions import Submissions

        return Submissions(self)

    # -- for the faces ------------------------------------------------------------------------------------

    def call(self, service: str, method: str, request: Any, timeout_s: float | None = None) -> Any:
        """One unary call; ``timeout_s`` in place of the client's deadline."""
        # What interrupts the main thread must not hit gRPC's own code, which would keep its locks for ever, nor its
        # import: the call is begun and read uncut, and waited for at a lock that leaves nothing behind.
        with interrupts.uncut():
            import grpc
        ended = _thread.allocate_lock()
        ended.acquire()
        try:
            with interrupts.uncut():
                future = getattr(self.stub(service), method).future(request, timeout=self._timeout(timeout_s))
                future.add_done_callback(lambda _: ended.release())
            ended.acquire()
            with interrupts.uncut():
                return future.result()
        except grpc.RpcError as error:
            raise self._failure(error, method) from None
        except (ValueError, grpc.FutureCancelledError) as error:  # closed meanwhile
            raise self._ended() from error

    def call_async(
        self,
        service: str,
        method: str,
        request: Any,
        done: Callable[[Any, Exception | None], None],
        timeout_s: float | None = None,
    ) -> None:
        """One unary call; ``done(response, error)`` runs in a thread of gRPC's, and never if the session ends first."""
        try:
            future = getattr(self.stub(service), method).future(request, timeout=self._timeout(timeout_s))
        except ValueError as error:  # closed meanwhile
            raise self._ended() from error

        def finished(call: Any) -> None:
            if call.cancelled():
                return  # the channel was closed: nobody waits any more
            error = call.exception()
            if error is not None:
                done(None, self._failure(error, method))
            else:
                done(call.result(), None)

        future.add_done_callback(finished)

    def stub(self, service: str) -> Any:
        with self._lock:
            if self._node_error is not None or self._closed:
                raise self._ended()
            if self._channel is None:
                from shoal_common.rpc.client import sync_channel

                self._channel = sync_channel(self.address, self.token, tls=self._tls, patient=self._patient)
            stub = self._stubs.get(service)
            if stub is None:
                from shoal_proto.v1 import gcs_pb2_grpc

                stub = self._stubs[service] = getattr(gcs_pb2_grpc, f"{service}ServiceStub")(self._channel)
            return stub

    def _timeout(self, timeout_s: float | None) -> float:
        return (self._deadline_s if timeout_s is None else timeout_s) + self._patience_s

    def _failure(self, error: grpc.RpcError, method: str) -> Exception:
        if self._node_error is not None:
            return self._node_error.with_traceback(None)
        return error_of(error, self.address, method)

    def _ended(self) -> Exception:
        return self._node_error.with_traceback(None) if self._node_error is not None else ClientClosed()

    # -- its end ------------------------------------------------------------------------------------------

    def abandon(self, error: Exception) -> None:
        """This process's node is gone: calls fail at once with ``error``, those under way too."""
        self._node_error = error
        self.close()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._channel is not None:
                self._channel.close()
                self._channel = None
                self._stubs.clear()


@contextmanager
def visiting(address: str, token: str) -> Iterator[GcsClient]:
    """A GCS for some questions without a session; where there may be several, a standby may take over meanwhile.

    Raises: ConnectionError when none answers there or it refuses, AuthenticationError for a wrong token, TlsError.
    """
    from shoal_common.tls import Tls, advice

    tls = Tls.from_environ(os.environ)
    several = _may_be_several(address)
    deadline_s = VISIT_SEVERAL_DEADLINE_S if several else VISIT_DEADLINE_S
    client = GcsClient(address, token, tls, deadline_s=deadline_s, patient=several)
    try:
        yield client
    except RpcError as error:
        reason = error.message.rstrip(".")
        raise ConnectionError(
            f"Shoal could not connect to a cluster at {address}: {reason}. Check that it runs and is reachable. "
            f"{advice(tls)}"
        ) from None
    finally:
        client.close()


def _may_be_several(address: str) -> bool:
    """It lists some, or has the name of another machine. In Compose or Kubernetes such a name leads to all replicas
    that are up, and none of these answers while a standby takes over."""
    if "," in address:
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # there is no such name: nothing to wait for
        return False
    numbers = [number for *_, (number, *_) in found]
    return host not in numbers and not any(ipaddress.ip_address(number).is_loopback for number in numbers)
