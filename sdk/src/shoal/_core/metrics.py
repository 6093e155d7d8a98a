"""What this process has counted and not reported yet."""

from __future__ import annotations

from shoal_common.channel.frames import MetricGrowth
from shoal_common.service.metrics import Family, Labels, Series, record

#: Beyond so many series the oldest is dropped: as many as a node keeps.
MAX_SERIES = 10_000


class MetricTable:
    """Belongs to one thread at a time."""

    def __init__(self) -> None:
        self._families: dict[str, Family] = {}
        #: By name and labels.
        self._growth: dict[tuple[str, Labels], Series] = {}

    def declare(self, family: Family) -> None:
        """Raises: ValueError when this process has another kind of metric, or other buckets, under the name."""
        known = self._families.setdefault(family.name, family)
        if (known.kind, known.boundaries) != (family.kind, family.boundaries):
            buckets = f" with boundaries {list(known.boundaries)}" if known.boundaries else ""
            raise ValueError(f"There is a metric named {family.name} already, a {known.kind}{buckets}: choose another.")

    def record(self, family: Family, labels: Labels, value: float) -> None:
        key = (family.name, labels)
        series = self._growth.get(key)
        if series is None:
            series = self._growth[key] = Series()
            if len(self._growth) > MAX_SERIES:
                del self._growth[next(iter(self._growth))]
        record(series, family, value)

    def take(self, labels: dict[str, str]) -> list[MetricGrowth]:
        """Everything since the last time. ``labels``: those that each series has besides its own."""
        growth, self._growth = self._growth, {}
        return [
            _growth(self._families[name], tuple(sorted({**labels, **dict(own)}.items())), series)
            for (name, own), series in growth.items()
        ]


def _growth(family: Family, labels: Labels, series: Series) -> MetricGrowth:
    return MetricGrowth(
        family.name, family.kind, family.description, family.boundaries, labels, series.value, series.counts
    )
