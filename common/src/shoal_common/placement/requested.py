"""Room that a program wants the cluster to have (``shoal.autoscaler.sdk``): written by drivers, read by an autoscaler.

It is one entry of the map of ``shoal.util.kv``, JSON, the same for the whole cluster: the last request replaces the one
before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

#: Where it lies in that map.
NAMESPACE = "shoal.autoscaler"
KEY = "requested_resources"


class Bundle(msgspec.Struct, frozen=True):
    """``count`` times room for ``resources`` (units), each time on one node, which meets ``label_selector``."""

    resources: dict[str, float]
    label_selector: dict[str, str] = {}
    count: int = 1


def encode(bundles: Sequence[tuple[Mapping[str, float], Mapping[str, str], int]]) -> bytes:
    """Of (resources, label selector, count); equal ones are counted together."""
    counts: dict[tuple[tuple[tuple[str, float], ...], tuple[tuple[str, str], ...]], int] = {}
    for resources, selector, count in bundles:
        kind = tuple(sorted(resources.items())), tuple(sorted(selector.items()))
        counts[kind] = counts.get(kind, 0) + count
    return msgspec.json.encode([Bundle(dict(r), dict(s), count) for (r, s), count in counts.items() if count])


def decode(value: bytes) -> list[Bundle]:
    """Raises: ValueError for what is none."""
    return msgspec.json.decode(value, type=list[Bundle])
