"""Metrics as Prometheus reads them: series of numbers, added up, and their text form. Pure.

Source: Prometheus' text exposition format, version 0.0.4, and OpenMetrics 1.0.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]
#: Names and values of labels, sorted by name.
Labels = tuple[tuple[str, str], ...]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Family:
    """One metric, of which there is a series for each set of labels."""

    name: str
    kind: Kind
    description: str = ""
    #: Upper ends of a histogram's buckets, ascending; one more bucket takes what is above all.
    boundaries: tuple[float, ...] = ()


@dataclass(slots=True)
class Series:
    """``value``: of a counter its sum, of a gauge what it was last, of a histogram the sum of what was observed;
    ``counts``: of a histogram, how many observations fell into each bucket."""

    value: float = 0.0
    counts: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Sample:
    """What a service reads off itself when it is asked: a number of a counter or gauge."""

    family: Family
    value: float
    labels: Labels = ()


def sample(family: Family, value: float, **labels: str) -> Sample:
    return Sample(family, value, tuple(sorted(labels.items())))


def grouped(samples: Iterable[Sample]) -> dict[Family, list[tuple[Labels, Series]]]:
    """For ``render``, in the order of their first appearance."""
    families: dict[Family, list[tuple[Labels, Series]]] = {}
    for each in samples:
        families.setdefault(each.family, []).append((each.labels, Series(each.value)))
    return families


def record(series: Series, family: Family, value: float) -> None:
    """A counter grew by ``value``, a gauge is it, a histogram has observed it."""
    if family.kind == "gauge":
        series.value = value
        return
    series.value += value
    if family.kind == "histogram":
        if not series.counts:
            series.counts = [0] * (len(family.boundaries) + 1)
        # A boundary belongs to the bucket below it ("le").
        series.counts[bisect_left(family.boundaries, value)] += 1


def merge(into: Series, growth: Series, family: Family) -> None:
    """``growth``: since the last time, of a gauge the whole."""
    if family.kind == "gauge":
        into.value = growth.value
        return
    into.value += growth.value
    if growth.counts:
        into.counts = [a + b for a, b in zip(into.counts or [0] * len(growth.counts), growth.counts, strict=True)]


def exposed_name(family: Family) -> str:
    """Of its series; a histogram's have endings besides."""
    total = family.kind == "counter" and not family.name.endswith("_total")
    return f"{family.name}_total" if total else family.name


def render(families: Mapping[Family, Iterable[tuple[Labels, Series]]], *, openmetrics: bool = False) -> str:
    """The text of a scrape. Characters that a label's name cannot have become underscores."""
    lines: list[str] = []
    for family, series in families.items():
        name = exposed_name(family)
        # There a counter is called by the name without the ending that its series have.
        heading = name.removesuffix("_total") if openmetrics and family.kind == "counter" else name
        if family.description:
            lines.append(f"# HELP {heading} {_escape(family.description, quotes=openmetrics)}")
        lines.append(f"# TYPE {heading} {family.kind}")
        for labels, each in series:
            lines += _lines(name, family, labels, each)
    if openmetrics:
        lines.append("# EOF")
    return "".join(f"{line}\n" for line in lines)


def _lines(name: str, family: Family, labels: Labels, series: Series) -> list[str]:
    if family.kind != "histogram":
        return [f"{name}{_labels(labels)} {_number(series.value)}"]
    lines, total = [], 0
    for end, count in zip((*family.boundaries, math.inf), series.counts, strict=True):
        total += count
        lines.append(f"{name}_bucket{_labels((*labels, ('le', _number(end))))} {total}")
    lines.append(f"{name}_sum{_labels(labels)} {_number(series.value)}")
    lines.append(f"{name}_count{_labels(labels)} {total}")
    return lines


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{_label_name(name)}="{_escape(value)}"' for name, value in labels) + "}"


def _label_name(name: str) -> str:
    legal = re.sub(r"[^a-zA-Z0-9_]", "_", name)
    return legal if legal[:1] and not legal[0].isdigit() else f"_{legal}"


def _escape(text: str, *, quotes: bool = True) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quotes else text


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return "NaN" if math.isnan(value) else repr(float(value))
