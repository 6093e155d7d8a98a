"""What Prometheus reads of a scheduler."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from shoal_common.service.metrics import Family, Sample, sample
from shoal_scheduler.cluster_view import NodeView

NODES = Family("shoal_scheduler_nodes", "gauge", "nodes that it knows: usable, draining, or silent for too long")
PICKS = Family("shoal_scheduler_placements", "counter", "leases and actors that it has found a node for")
INFEASIBLE = Family("shoal_scheduler_infeasible", "counter", "requests that no node could ever hold")
FAMILIES = (NODES, PICKS, INFEASIBLE)


def scheduler_samples(nodes: Iterable[NodeView], placements: int, infeasible: int) -> Iterator[Sample]:
    counts = Counter("silent" if node.silent else "draining" if node.draining else "usable" for node in nodes)
    for state in ("usable", "draining", "silent"):
        yield sample(NODES, counts[state], state=state)
    yield sample(PICKS, placements)
    yield sample(INFEASIBLE, infeasible)
