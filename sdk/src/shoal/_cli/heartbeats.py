"""What each node does now, as its raylet tells with every change and every second."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from typing import TYPE_CHECKING

from shoal._net.gcs.errors import ClientClosed
from shoal.exceptions import RpcError
from shoal_common.bus import subjects

if TYPE_CHECKING:
    from shoal._net.gcs.client import GcsClient
    from shoal_proto.v1 import events_pb2

#: A heartbeat comes every second.
AWAIT_S = 2.0
_POLL_S = 0.02


class Heartbeats:
    """The last one of each node. A thread of its own reads them."""

    def __init__(self, gcs: GcsClient) -> None:
        self.last: dict[bytes, events_pb2.Heartbeat] = {}
        self._subscription = gcs.events.subscribe(subjects.all_heartbeats(gcs.nodes.cluster().cluster_id))
        self._thread = threading.Thread(target=self._read, name="shoal-heartbeats", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        from shoal_proto.v1 import events_pb2

        try:
            for _, data in self._subscription:
                heartbeat = events_pb2.Heartbeat.FromString(data)
                self.last[heartbeat.node_id] = heartbeat
        except (RpcError, ClientClosed):
            pass  # who looks at them asks the GCS, too, and is told there

    def wait_for(self, node_ids: Collection[bytes]) -> None:
        """One of each, or as many as come in time."""
        deadline = time.monotonic() + AWAIT_S
        while not self.last.keys() >= set(node_ids) and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    def close(self) -> None:
        self._subscription.cancel()
        self._thread.join(AWAIT_S)
