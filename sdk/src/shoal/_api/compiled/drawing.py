"""Compiled graphs as people see them: as text, and in the language of graphviz. The words are Ray's.

Pure: nodes in, text out.
"""

from __future__ import annotations

from typing import NamedTuple

from shoal._api.graph import (
    ClassMethodNode,
    DAGNode,
    InputAttributeNode,
    InputNode,
    MethodOutputNode,
    MultiOutputNode,
)

_INPUT, _OUTPUT, _PART = "lightblue", "yellow", "orange"
#: Colours of actors: the first, and how far the next one is from that; all of them can be read on.
_FIRST_COLOUR, _NEXT_COLOUR = 24_000, 2_000
_HEX = 6


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


def draw(output: DAGNode) -> Drawing:
    """The graph that ends there. Where that is no ``MultiOutputNode``, one is added, as the driver's part."""
    nodes = sorted(output._order(), key=lambda node: node._number)
    numbers = {node: number for number, node in enumerate(nodes)}
    colours: dict[bytes, str] = {}
    boxes = [_box(node, colours) for node in nodes]
    edges = [Edge(numbers[need], numbers[node], _channel(need, node)) for node in nodes for need in node._needs()]
    if not isinstance(output, MultiOutputNode):
        edges.append(Edge(numbers[output], len(boxes), _channel(output, None)))
        boxes.append(_output())
    return Drawing(boxes, edges)


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


def _box(node: DAGNode, colours: dict[bytes, str]) -> Box:
    if isinstance(node, MultiOutputNode):
        return _output()
    if isinstance(node, InputAttributeNode):
        return Box((f"InputAttributeNode[{node._key}]",), f"Input[{node._key}]", "rectangle", _INPUT)
    if isinstance(node, InputNode):
        return Box(("InputNode",), "InputNode", "rectangle", _INPUT)
    if isinstance(node, MethodOutputNode):
        return Box((f"ClassMethodOutputNode[{node._index}]",), f"Output[{node._index}]", "rectangle", _PART)
    assert isinstance(node, ClassMethodNode)
    state = node._actor_handle()._shoal_state
    actor = state.actor_id.hex()[:_HEX]
    colour = colours.setdefault(state.actor_id, f"#{_FIRST_COLOUR + _NEXT_COLOUR * len(colours):06X}")
    method = node.get_method_name()
    lines = (f"Actor: {state.class_name}", f"ID: {actor}...", f"Method: {method}")
    return Box(lines, f"Actor_{actor}:{method}", "oval", colour)


def _output() -> Box:
    return Box(("MultiOutputNode",), "MultiOutputNode", "rectangle", _OUTPUT)


def _channel(begin: DAGNode, end: DAGNode | None) -> str:
    """``end`` None: the driver."""
    made, read = _actor(begin), None if end is None else _actor(end)
    if made == read:
        return "within the driver" if made is None else "within the actor"
    return "shared memory"


def _actor(node: DAGNode) -> object:
    """None: the driver."""
    return node._actor_handle() if isinstance(node, ClassMethodNode) else None


def _rows(drawing: Drawing) -> list[list[int]]:
    row_of = [0] * len(drawing.boxes)
    for edge in sorted(drawing.edges, key=lambda edge: edge.end):
        row_of[edge.end] = max(row_of[edge.end], row_of[edge.begin] + 1)
    return [[number for number, row in enumerate(row_of) if row == each] for each in range(max(row_of) + 1)]


def _short(drawing: Drawing, number: int) -> str:
    return f"{number}:{drawing.boxes[number].short}"
