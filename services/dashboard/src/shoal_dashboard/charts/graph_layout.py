"""Where the boxes and lines of a graph of calls are drawn: functions in layers, callers above what they call. Pure.

Layers by longest path without the calls that close a circle, order within a layer by the mean place of the callers.
Source: Sugiyama, Tagawa, Toda, *Methods for Visual Understanding of Hierarchical System Structures* (1981).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

#: In pixels.
BOX_WIDTH, BOX_HEIGHT = 190, 58
_GAP_X, _GAP_Y, _MARGIN = 24, 56, 28
#: Times that each layer is put in order by its neighbours, downwards and upwards.
_SWEEPS = 4


@dataclass(frozen=True, slots=True)
class Box:
    """``x``, ``y``: of its upper left corner."""

    name: str
    x: int
    y: int


@dataclass(frozen=True, slots=True)
class Line:
    """``path``: of SVG. ``label_x``, ``label_y``: where its number is written."""

    caller: str
    callee: str
    count: int
    path: str
    label_x: int
    label_y: int


@dataclass(frozen=True, slots=True)
class Drawing:
    width: int
    height: int
    boxes: list[Box]
    lines: list[Line]


def drawing(names: Sequence[str], calls: Mapping[tuple[str, str], int]) -> Drawing:
    """``names``: all functions, each once. ``calls``: how often the one has called the other; both are in ``names``."""
    layers = _ordered(_layers(names, calls), calls)
    widest = max((len(layer) for layer in layers), default=0)
    width = 2 * _MARGIN + widest * (BOX_WIDTH + _GAP_X) - (_GAP_X if widest else 0)
    places: dict[str, Box] = {}
    for row, layer in enumerate(layers):
        used = len(layer) * (BOX_WIDTH + _GAP_X) - _GAP_X
        for column, name in enumerate(layer):
            x = (width - used) // 2 + column * (BOX_WIDTH + _GAP_X)
            places[name] = Box(name, x, _MARGIN + row * (BOX_HEIGHT + _GAP_Y))
    height = 2 * _MARGIN + len(layers) * (BOX_HEIGHT + _GAP_Y) - (_GAP_Y if layers else 0)
    lines = [_line(places[caller], places[callee], count) for (caller, callee), count in calls.items()]
    return Drawing(width, height, [places[name] for name in names], lines)


def _layers(names: Sequence[str], calls: Mapping[tuple[str, str], int]) -> list[list[str]]:
    callees: dict[str, list[str]] = defaultdict(list)
    called = set()
    for caller, callee in calls:
        if caller != callee:
            callees[caller].append(callee)
            called.add(callee)
    depth = dict.fromkeys(names, 0)
    done: list[str] = []
    seen: set[str] = set()
    back: set[tuple[str, str]] = set()
    # Whoever nobody calls first: what closes a circle is then the call that leads back to where it began.
    for root in sorted(names, key=lambda name: name in called):
        if root in seen:
            continue
        seen.add(root)
        open_: list[tuple[str, list[str]]] = [(root, list(callees[root]))]
        path = {root}
        while open_:
            name, rest = open_[-1]
            if not rest:
                open_.pop()
                path.discard(name)
                done.append(name)
                continue
            callee = rest.pop(0)
            if callee in path:
                back.add((name, callee))
            elif callee not in seen:
                seen.add(callee)
                path.add(callee)
                open_.append((callee, list(callees[callee])))
    for name in reversed(done):
        for callee in callees[name]:
            if (name, callee) not in back:
                depth[callee] = max(depth[callee], depth[name] + 1)
    layers: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for name in names:
        layers[depth[name]].append(name)
    return layers


def _ordered(layers: list[list[str]], calls: Mapping[tuple[str, str], int]) -> list[list[str]]:
    neighbours: dict[str, set[str]] = defaultdict(set)
    for caller, callee in calls:
        neighbours[caller].add(callee)
        neighbours[callee].add(caller)
    for sweep in range(_SWEEPS):
        downwards = sweep % 2 == 0
        rows = layers if downwards else layers[::-1]
        for before, layer in pairwise(rows):
            place = {name: index / max(1, len(before) - 1) for index, name in enumerate(before)}
            own = {name: index / max(1, len(layer) - 1) for index, name in enumerate(layer)}

            def mean(name: str, place: dict[str, float] = place, own: dict[str, float] = own) -> float:
                found = [place[each] for each in neighbours[name] if each in place]
                return sum(found) / len(found) if found else own[name]

            layer.sort(key=mean)
    return layers


def _line(caller: Box, callee: Box, count: int) -> Line:
    middle = BOX_WIDTH // 2
    if caller.y < callee.y:
        x1, y1, x2, y2 = caller.x + middle, caller.y + BOX_HEIGHT, callee.x + middle, callee.y
        bend = (y2 - y1) // 2
        path = f"M{x1} {y1}C{x1} {y1 + bend} {x2} {y2 - bend} {x2} {y2}"
        return Line(caller.name, callee.name, count, path, (x1 + x2) // 2 + 4, (y1 + y2) // 2 + 4)
    # It leads back, or to itself: around the right side.
    x1, y1, x2, y2 = caller.x + BOX_WIDTH, caller.y + 40, callee.x + BOX_WIDTH, callee.y + 18
    out = max(x1, x2) + _GAP_X - 2
    path = f"M{x1} {y1}C{out} {y1} {out} {y2} {x2} {y2}"
    return Line(caller.name, callee.name, count, path, out - 16, (y1 + y2) // 2 - 6)
