"""NodeService, typed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from shoal._net.gcs.records import Cluster, NodeRecord
from shoal_common.rpc.values import resource_set
from shoal_common.states import NodeState
from shoal_proto.v1 import gcs_pb2

if TYPE_CHECKING:
    from shoal._net.gcs.calling import Calling


class Nodes:
    """See ``client`` for what all methods raise."""

    def __init__(self, gcs: Calling) -> None:
        self._gcs = gcs

    def cluster(self) -> Cluster:
        told: gcs_pb2.GetClusterResponse = self._gcs.call("Node", "GetCluster", gcs_pb2.GetClusterRequest())
        return Cluster(
            told.cluster_id,
            told.session_name,
            tuple(told.scheduler_addresses),
            tuple(told.objectstore_addresses),
            told.nats_address,
        )

    def list(self) -> list[NodeRecord]:
        """All that ever joined, as far as the GCS remembers; dead ones too."""
        response: gcs_pb2.ListNodesResponse = self._gcs.call("Node", "ListNodes", gcs_pb2.ListNodesRequest())
        return [_record(info) for info in response.nodes]

    def begin_list(self, done: Callable[[Sequence[NodeRecord] | None, Exception | None], None]) -> None:
        def answered(response: gcs_pb2.ListNodesResponse | None, error: Exception | None) -> None:
            done(None if response is None else [_record(info) for info in response.nodes], error)

        self._gcs.call_async("Node", "ListNodes", gcs_pb2.ListNodesRequest(), answered)

    def drain(self, node_id: bytes, reason: str, deadline_unix_ms: int) -> None:
        """Nothing new is placed there; ``deadline_unix_ms`` by which it will have left, 0 = not known. Idempotent.

        Raises: NotFound.
        """
        request = gcs_pb2.DrainNodeRequest(node_id=node_id, reason=reason, deadline_unix_ms=deadline_unix_ms)
        self._gcs.call("Node", "DrainNode", request)


def _record(info: gcs_pb2.NodeInfo) -> NodeRecord:
    return NodeRecord(
        node_id=info.node_id,
        state=NodeState(info.state),
        host=info.host,
        raylet_address=info.raylet_address,
        raylet_path=info.raylet_path,
        channel_port=info.channel_port,
        metrics_port=info.metrics_port,
        session_dir=info.session_dir,
        total=resource_set(info.total),
        available=resource_set(info.available),
        labels=dict(info.labels),
        start_unix_ms=info.start_unix_ms,
        drain_deadline_unix_ms=info.drain_deadline_unix_ms,
        death_reason=info.death_reason,
    )
