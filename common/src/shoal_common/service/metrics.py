"""Metrics as Prometheus reads them: series of numbers, added up, and their text form. Pure.

Source: Prometheus' text exposition format, version 0.0.4.
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


def render(families: Mapping[Family, Iterable[tuple[Labels, Series]]]) -> str:
    """The text of a scrape. Characters that a label's name cannot have become underscores."""
    lines: list[str] = []
    for family, series in families.items():
        name = family.name
        if family.kind == "counter" and not name.endswith("_total"):
            name += "_total"
        if family.description:
            lines.append(f"# HELP {name} {_escape(family.description, quotes=False)}")
        lines.append(f"# TYPE {name} {family.kind}")
        for labels, each in series:
            lines += _lines(name, family, labels, each)
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
