"""Metrics of one's own: ``Counter``, ``Gauge`` and ``Histogram`` with tags, as ``ray.util.metrics``.

They work in drivers, tasks and actors. Each node adds up what its processes count and serves it for Prometheus under
``http://<node>:<port>/metrics`` (``shoal.nodes()``: ``MetricsExportPort``), as ``shoal_<name>`` with the tags,
``JobId`` and ``NodeId`` for labels. A process reports a second after it has counted something, and when it ends by
itself; one that is killed takes its last second along.
"""

from __future__ import annotations

import atexit
import os
import re
import threading
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from shoal import _current
from shoal._core.metrics import MetricTable
from shoal._text import check_text
from shoal._values.numbers import plain
from shoal_common.channel import frames
from shoal_common.service.metrics import Family, Kind

if TYPE_CHECKING:
    from shoal._owner.core_worker import CoreWorker

__all__ = ["Counter", "Gauge", "Histogram"]

#: A process reports so many seconds after it has counted something.
REPORT_S = 1.0
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


class _Reporter:
    """Hands what this process counts to its node's raylet. Without a session it waits for one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._table = MetricTable()
        #: That of the session in which a report is due.
        self._due: CoreWorker | None = None
        #: That of the session whose end has the last report.
        self._session: CoreWorker | None = None

    def declare(self, family: Family) -> None:
        with self._lock:
            self._table.declare(family)

    def record(self, family: Family, labels: tuple[tuple[str, str], ...], value: float) -> None:
        core = _current.current_or_none()
        with self._lock:
            self._table.record(family, labels, value)
            if core is None or self._due is core:
                return
            self._due = core
            if self._session is not core:
                self._session = core
                core.before_close.append(self.report)
        core.reactor.call_later(REPORT_S, self.report)

    def report(self) -> None:
        core = _current.current_or_none()
        with self._lock:
            self._due = None
            if core is None or not core.job_id:
                return
            series = self._table.take({"JobId": core.job_id.hex()})
        if series:
            core.raylet.send(frames.MetricsReport(series))


_reporter = _Reporter()
# A worker's end runs exit hooks.
atexit.register(lambda: _reporter.report())


def _forget_in_child() -> None:
    """What the parent has counted it reports itself; and a thread of it may have held the lock."""
    global _reporter
    _reporter = _Reporter()


os.register_at_fork(after_in_child=_forget_in_child)


class Metric:
    """What the three have in common. ``tag_keys``: each must have a value, by default or when something is recorded.

    Raises: ValueError (no name; this process has another kind of metric under it), TypeError (tag_keys is not a tuple
    of strings; a name or description that is none), UnicodeEncodeError (text that cannot travel). A name that
    Prometheus does not take is warned of, and nothing is recorded then.
    """

    _kind: Kind

    def __init__(self, name: str, description: str = "", tag_keys: tuple[str, ...] | None = None) -> None:
        self._make(name, description, (), tag_keys)

    def _make(self, name: str, description: str, boundaries: Sequence[float], tag_keys: tuple[str, ...] | None) -> None:
        if not name:
            raise ValueError("Empty name is not allowed. Please provide a metric name.")
        for what, text in (("name", name), ("description", description)):
            if not isinstance(text, str):
                raise TypeError(f"The {what} of a metric must be a str, not {type(text).__name__}.")
        check_text("the description of a metric", description)
        if not isinstance(tag_keys or (), tuple):
            raise TypeError(f"tag_keys should be a tuple type, got: {type(tag_keys)}")
        for key in tag_keys or ():
            if not isinstance(key, str):
                raise TypeError(f"Tag keys must be str, got {type(key)}.")
            check_text("a tag of a metric", key)
        self._valid = _NAME.fullmatch(name) is not None
        if not self._valid:
            warnings.warn(
                f"Invalid metric name: {name}. Metric will be discarded and data will not be collected or published. "
                "Metric names can only contain letters, numbers, _, and :. Metric names cannot start with numbers.",
                UserWarning,
                stacklevel=3,
            )
        self._family = Family(name, self._kind, description, tuple(boundaries))
        self._tag_keys = tag_keys or ()
        self._default_tags: dict[str, str] = {}
        if self._valid:
            _reporter.declare(self._family)

    def set_default_tags(self, default_tags: dict[str, str]) -> Self:
        """For whatever is recorded without them; returns the metric.

        Raises: ValueError (not one of tag_keys), TypeError (a value is no string).
        """
        for key in default_tags:
            if key not in self._tag_keys:
                raise ValueError(f"Unrecognized tag key {key}.")
        _check_values(default_tags)
        self._default_tags = default_tags
        return self

    @property
    def info(self) -> dict[str, Any]:
        """Name, description, tag keys and default tags; of a histogram its boundaries too."""
        return {
            "name": self._family.name,
            "description": self._family.description,
            "tag_keys": self._tag_keys,
            "default_tags": self._default_tags,
        }

    def _record(self, value: float, tags: Mapping[str, str] | None) -> None:
        if not self._valid:
            return
        if tags:
            _check_values(tags)
            tags = {**self._default_tags, **tags}
        else:
            tags = self._default_tags
        if missing := [key for key in self._tag_keys if key not in tags]:
            raise ValueError(f"Missing value for tag key(s): {','.join(missing)}.")
        _reporter.record(self._family, tuple(sorted(tags.items())), value)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self)._again, (self._family, self._tag_keys, self._default_tags)

    @classmethod
    def _again(cls, family: Family, tag_keys: tuple[str, ...], default_tags: dict[str, str]) -> Self:
        metric = cls.__new__(cls)
        metric._make(family.name, family.description, family.boundaries, tag_keys)
        return metric.set_default_tags(default_tags)


class Counter(Metric):
    """A sum that only grows. Prometheus sees it as ``shoal_<name>_total``."""

    _kind = "counter"

    def inc(self, value: float = 1.0, tags: dict[str, str] | None = None) -> None:
        """Raises: TypeError (no number, a tag that is no string), ValueError (not above 0, a tag is missing),
        UnicodeEncodeError (a tag that cannot travel)."""
        value = _addable(value)
        if value <= 0:
            raise ValueError(f"value must be >0, got {value}")
        self._record(value, tags)


class Gauge(Metric):
    """A value that goes up and down: of several processes of a node, the one that was set last. It goes with the
    process that has set it."""

    _kind = "gauge"

    def set(self, value: float | None, tags: dict[str, str] | None = None) -> None:
        """None changes nothing; NaN and infinities are values. Raises: TypeError (no number, a tag that is no string),
        ValueError (a tag is missing)."""
        if value is not None:
            self._record(_number(value), tags)


class Histogram(Metric):
    """How many observations fell below each of ``boundaries`` (above 0, ascending), how many there were, and their
    sum.

    Raises: ValueError without boundaries, for such as are not above 0 or not ascending; as ``Metric``.
    """

    _kind = "histogram"

    def __init__(
        self,
        name: str,
        description: str = "",
        boundaries: Sequence[float] | None = None,
        tag_keys: tuple[str, ...] | None = None,
    ) -> None:
        if not boundaries:
            raise ValueError(
                "boundaries argument should be provided when using the Histogram class. e.g., "
                'Histogram("name", boundaries=[1.0, 2.0])'
            )
        for index, boundary in enumerate(boundaries):
            if _addable(boundary) <= 0:
                raise ValueError(
                    f"Invalid `boundaries` argument at index {index}, {boundaries}. Use positive values for the "
                    "arguments."
                )
        if list(boundaries) != sorted(set(boundaries)):
            raise ValueError(f"The `boundaries` must be ascending, but are {boundaries}.")
        self._make(name, description, [float(boundary) for boundary in boundaries], tag_keys)

    @property
    def boundaries(self) -> list[float]:
        return list(self._family.boundaries)

    @property
    def info(self) -> dict[str, Any]:
        return {**super().info, "boundaries": self.boundaries}

    def observe(self, value: float, tags: dict[str, str] | None = None) -> None:
        """Raises: TypeError (no number, a tag that is no string), ValueError (a tag is missing)."""
        self._record(_addable(value), tags)


def _number(value: Any) -> float:
    number = plain(value)
    if not isinstance(number, int | float):
        raise TypeError(f"value must be int or float, got {type(value)}.")
    return number


def _addable(value: Any) -> float:
    number = _number(value)
    if number != number:
        raise ValueError("value must be a number, got NaN, which nothing can be added to.")
    return number


def _check_values(tags: Mapping[str, str]) -> None:
    """Raises: TypeError, UnicodeEncodeError, ValueError (too long)."""
    for value in tags.values():
        if not isinstance(value, str):
            raise TypeError(f"Tag values must be str, got {type(value)}.")
        check_text("a tag of a metric", value)
