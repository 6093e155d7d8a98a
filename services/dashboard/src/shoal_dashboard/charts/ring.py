"""The last hour of how busy each node and the whole cluster were, in steps of five seconds. Pure: the time goes in.

Everything has the same size from the beginning: 23 KB a node. Steps are numbered; one in which nothing was told is
empty.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shoal_common.events.node_events import LOAD_S, NodeLoad

#: Of a step, in seconds.
STEP_S = LOAD_S
STEPS = 720
#: Nodes that have series of their own; those beyond are in the cluster's only.
MAX_NODES = 2_000
#: Nodes at all, so that what is told does not grow without bound.
_MAX_TOLD = 20_000
#: A node that has told nothing for so many steps is taken to be gone.
_SILENT_STEPS = 3

#: Of a node, and as their sums of the cluster. CPUs and leases by number, the others in bytes.
LOADS = ("cpus_busy", "cpus", "memory_used", "memory", "store_used", "store", "running", "waiting")
#: Of the cluster: tasks in such a state at that time, and those that ended, a second.
TASKS = ("tasks_waiting", "tasks_running", "tasks_finished", "tasks_failed")

_Values = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Span:
    """``series``: by name, the newest last; None = nothing was told then. ``newest``: the number of the last step."""

    newest: int
    series: Mapping[str, list[float | None]]


@dataclass(frozen=True, slots=True)
class Last:
    """Of one series: its last value, the mean of the last minute, and the most of the hour; None = there is none."""

    now: float | None
    minute: float | None
    most: float | None


class _Node:
    def __init__(self, values: _Values | None) -> None:
        self.load: NodeLoad
        self.told_at = 0
        self.values = values


class Ring:
    def __init__(self) -> None:
        #: The last step that is complete.
        self.newest = -1
        self._nodes: dict[bytes, _Node] = {}
        self._whole = _empty(len(LOADS) + len(TASKS))
        self._ended: tuple[int, int] | None = None

    def told(self, load: NodeLoad, now: float) -> None:
        """``now``: seconds of a clock that only runs forward, as for ``step``."""
        node = self._nodes.get(load.node_id)
        if node is None:
            if len(self._nodes) >= _MAX_TOLD:
                return
            charted = sum(each.values is not None for each in self._nodes.values()) if self._nodes else 0
            node = self._nodes[load.node_id] = _Node(_empty(len(LOADS)) if charted < MAX_NODES else None)
        node.load, node.told_at = load, int(now // STEP_S)

    def step(self, now: float, tasks: Mapping[str, int]) -> None:
        """The step of ``now`` is complete. ``tasks``: how many are in each state."""
        number = int(now // STEP_S)
        if number <= self.newest:
            return
        for missed in range(max(self.newest + 1, number - STEPS), number):
            self._clear(missed % STEPS)
        at = number % STEPS
        self._clear(at)
        told = [node for node in self._nodes.values() if number - node.told_at <= _SILENT_STEPS]
        sums = np.zeros(len(LOADS), np.float64)
        for node in told:
            values = np.array(_values(node.load), np.float64)
            sums += values
            if node.values is not None:
                node.values[:, at] = values
        if told:
            self._whole[: len(LOADS), at] = sums
        ended = tasks.get("FINISHED", 0), tasks.get("FAILED", 0)
        running = tasks.get("RUNNING", 0)
        self._whole[len(LOADS), at] = sum(tasks.values()) - running - sum(ended)
        self._whole[len(LOADS) + 1, at] = running
        if self._ended is not None and self.newest >= 0:
            passed = (number - self.newest) * STEP_S
            for row, (before, after) in enumerate(zip(self._ended, ended, strict=True), len(LOADS) + 2):
                self._whole[row, at] = max(0, after - before) / passed
        self._ended, self.newest = ended, number
        for node_id, node in list(self._nodes.items()):
            if number - node.told_at > STEPS:
                del self._nodes[node_id]

    def nodes(self) -> dict[bytes, NodeLoad]:
        """What those that are not silent told last."""
        return {key: node.load for key, node in self._nodes.items() if self.newest - node.told_at <= _SILENT_STEPS}

    def span(self, node_id: bytes = b"", after: int = -1) -> Span:
        """Of one node, or of the cluster; the steps behind ``after``. One that is not known has no series."""
        rows = self._rows(node_id)
        steps = min(STEPS, self.newest - after) if 0 <= after <= self.newest else STEPS
        if self.newest < 0:
            return Span(-1, {name: [] for name, _ in rows})
        order = (np.arange(self.newest - steps + 1, self.newest + 1)) % STEPS
        return Span(self.newest, {name: [_shown(value) for value in values[order].tolist()] for name, values in rows})

    def last(self, node_id: bytes = b"") -> dict[str, Last]:
        rows = self._rows(node_id)
        if self.newest < 0:
            return {name: Last(None, None, None) for name, _ in rows}
        minute = np.arange(self.newest - 60 // int(STEP_S) + 1, self.newest + 1) % STEPS
        return {
            name: Last(
                _shown(float(values[self.newest % STEPS])),
                _mean(values[minute]),
                _shown(float(np.fmax.reduce(values))),
            )
            for name, values in rows
        }

    def validate(self) -> None:
        """Asserts what must always hold; for tests."""
        charted = [node.values for node in self._nodes.values() if node.values is not None]
        assert len(charted) <= MAX_NODES and len(self._nodes) <= _MAX_TOLD
        assert all(values.shape == (len(LOADS), STEPS) for values in charted)
        assert all(node.told_at <= self.newest + 1 or self.newest < 0 for node in self._nodes.values())

    def _rows(self, node_id: bytes) -> list[tuple[str, _Values]]:
        if not node_id:
            return list(zip((*LOADS, *TASKS), self._whole, strict=True))
        node = self._nodes.get(node_id)
        return [] if node is None or node.values is None else list(zip(LOADS, node.values, strict=True))

    def _clear(self, at: int) -> None:
        for values in self._all():
            values[:, at] = np.nan

    def _all(self) -> Iterable[_Values]:
        yield self._whole
        for node in self._nodes.values():
            if node.values is not None:
                yield node.values


def _values(load: NodeLoad) -> tuple[float, ...]:
    return (
        load.cpu_percent / 100 * load.cpus,
        load.cpus,
        load.memory_used,
        load.memory,
        load.store_used,
        load.store,
        load.running,
        load.waiting,
    )


def _empty(rows: int) -> _Values:
    return np.full((rows, STEPS), np.nan, np.float32)


def _shown(value: float) -> float | None:
    return None if math.isnan(value) else float(f"{value:.5g}")


def _mean(values: _Values) -> float | None:
    told = values[~np.isnan(values)]
    return _shown(float(told.mean())) if told.size else None
