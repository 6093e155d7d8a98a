"""What nodes have of each resource and how much of it is used, as text. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from shoal._net.gcs.records import NodeRecord
from shoal_common.placement.resources import GRAINS

_GIB = ("memory", "object_store_memory")


def usage(nodes: Iterable[NodeRecord]) -> list[tuple[str, str]]:
    """Of all of them together, by name: ``("CPU", "1.5/4")``."""
    total: dict[str, float] = {}
    free: dict[str, float] = {}
    for node in nodes:
        for amounts, sums in ((node.total, total), (node.available, free)):
            for name, grains in amounts.grains.items():
                sums[name] = sums.get(name, 0.0) + grains / GRAINS
    parts = []
    for name in sorted(total):
        if not name.startswith("node:"):
            unit = 1 << 30 if name in _GIB else 1
            used, whole = (total[name] - free.get(name, 0.0)) / unit, total[name] / unit
            parts.append((name, f"{used:.4g}/{whole:.4g}{' GiB' if unit > 1 else ''}"))
    return parts
