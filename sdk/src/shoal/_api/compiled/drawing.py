"""Compiled graphs as people see them: as text, and in the language of graphviz. The words are Ray's.

Pure: a drawing in, text out. Who makes one of a graph is ``boxes``.
"""

from __future__ import annotations

from typing import NamedTuple


class Box(NamedTuple):
    """A node. ``lines``: what it says; ``short``: the same in a word."""

    lines: tuple[str, ...]
    short: str
    shape: str
    colour: str


class Edge(NamedTuple):
    """A value that goes from one node, by number, to another. ``channel``: by which way."""

    begin: int
    end: int
    channel: str


class Drawing(NamedTuple):
    """Nodes have numbers, each behind those that it needs."""

    boxes: list[Box]
    edges: list[Edge]


def as_text(drawing: Drawing) -> str:
    """Its nodes, its edges, and the nodes once more in rows: each in the first row behind all that it needs."""
    lines = ["Nodes Information:"]
    lines += [f'{number} [label="Task {number}  {" ".join(box.lines)}"]' for number, box in enumerate(drawing.boxes)]
    lines += ["", "Edges Information:"]
    lines += [f"{edge.begin} ---> {edge.end}" for edge in drawing.edges]
    lines += ["", "Graph Built:"]
    rows = _rows(drawing)
    width = 2 + max(len(_short(drawing, number)) for number in range(len(drawing.boxes)))
    for index, row in enumerate(rows):
        if index:
            lines.append("".join("|".ljust(width) for _ in row).rstrip())
        lines.append("".join(_short(drawing, number).ljust(width) for number in row).rstrip())
    return "\n".join(lines)


def as_dot(drawing: Drawing, *, channels: bool) -> str:
    """For graphviz. ``channels``: edges say which way their value goes."""
    lines = ["digraph compiled_graph {"]
    for number, box in enumerate(drawing.boxes):
        label = _quoted("\n".join([f"Task {number}", *box.lines]))
        lines.append(f'\t{number} [label={label} fillcolor="{box.colour}" shape={box.shape} style=filled]')
    for edge in drawing.edges:
        lines.append(f"\t{edge.begin} -> {edge.end}{f' [label={_quoted(edge.channel)}]' if channels else ''}")
    return "\n".join([*lines, "}", ""])


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _rows(drawing: Drawing) -> list[list[int]]:
    row_of = [0] * len(drawing.boxes)
    for edge in sorted(drawing.edges, key=lambda edge: edge.end):
        row_of[edge.end] = max(row_of[edge.end], row_of[edge.begin] + 1)
    return [[number for number, row in enumerate(row_of) if row == each] for each in range(max(row_of) + 1)]


def _short(drawing: Drawing, number: int) -> str:
    return f"{number}:{drawing.boxes[number].short}"
