"""The nodes of a graph as the boxes of its drawing. Pure: nodes in, a drawing out."""

from __future__ import annotations

from shoal._api.compiled.drawing import Box, Drawing, Edge
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
