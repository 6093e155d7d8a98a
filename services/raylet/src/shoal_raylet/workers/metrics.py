"""What the processes of this node count (``shoal.util.metrics``), added up for Prometheus.

Counters and histograms stay when their process ends, as pooled workers come and go; a gauge goes with the process that
set it, and where several have set it, the last word counts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import structlog

from shoal_common.channel import frames
from shoal_common.service.metrics import Family, Labels, Sample, Series, exposed_name, grouped, merge, render

log = structlog.get_logger(__name__)

#: Beyond so many series of one node those that nobody touched for longest are forgotten.
MAX_SERIES = 10_000
#: Before the names that users choose.
_PREFIX = "shoal_"

_Key = tuple[Family, Labels, bytes]


class ProcessMetrics:
    """Belongs to one event loop."""

    def __init__(self, node_id: bytes) -> None:
        self._node = ("NodeId", node_id.hex())
        #: By metric, labels, and of a gauge the process; those touched last at the end.
        self._series: OrderedDict[_Key, Series] = OrderedDict()
        self._overflowed = False

    def add(self, process: bytes, series: list[frames.MetricGrowth]) -> None:
        for each in series:
            family = Family(each.name, each.kind, each.description, each.boundaries)
            key = (family, each.labels, process if each.kind == "gauge" else b"")
            merge(self._series.setdefault(key, Series()), Series(each.value, each.counts), family)
            self._series.move_to_end(key)
        while len(self._series) > MAX_SERIES:
            self._series.popitem(last=False)
            if not self._overflowed:
                self._overflowed = True
                log.warning("metric_series_forgotten", kept=MAX_SERIES)

    def process_ended(self, process: bytes) -> None:
        for key in [key for key in self._series if key[2] == process]:
            del self._series[key]

    def page(self, openmetrics: bool, samples: Iterable[Sample] = ()) -> str:
        """As Prometheus reads it, after the ``samples`` of the node itself. Of two metrics of users with one name and
        different descriptions, kinds or buckets, the one that was touched last counts; one with a name of the node's
        own is left out."""
        own = grouped(samples)
        taken = {exposed_name(family) for family in own}
        last = {family.name: family for family, _, _ in self._series}
        families: dict[Family, dict[Labels, Series]] = {}
        for (family, labels, _), series in self._series.items():
            if last[family.name] == family:
                shown = Family(_PREFIX + family.name, family.kind, family.description, family.boundaries)
                families.setdefault(shown, {})[tuple(sorted({self._node, *labels}))] = series
        users = {
            family: sorted(by_labels.items())
            for family, by_labels in sorted(families.items(), key=_name)
            if exposed_name(family) not in taken
        }
        return render({**own, **users}, openmetrics=openmetrics)


def _name(item: tuple[Family, object]) -> str:
    return item[0].name
