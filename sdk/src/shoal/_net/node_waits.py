"""What is waited for on one node, as its raylet learns from the processes there."""

from __future__ import annotations

from shoal_common.rpc.client import service_errors, sync_channel
from shoal_common.tls import Tls
from shoal_proto.v1 import raylet_pb2
from shoal_proto.v1.raylet_pb2_grpc import RayletServiceStub

#: They have answered by then, in seconds: they ask others in their turn.
_ANSWER_S = 15.0


def explain(raylet_address: str, token: str, tls: Tls | None, *, object_id: bytes = b"", actor_id: bytes = b"") -> str:
    """Of an object, which its owner tells; or of an actor. Empty = it waits for nothing.

    Raises: ServiceError: NotFound when nobody there owns the object, or the actor is not there.
    """
    request = raylet_pb2.ExplainWaitRequest(object_id=object_id, actor_id=actor_id)
    channel = sync_channel(raylet_address, token, tls=tls)
    try:
        with service_errors():
            return RayletServiceStub(channel).ExplainWait(request, timeout=_ANSWER_S).text
    finally:
        channel.close()
