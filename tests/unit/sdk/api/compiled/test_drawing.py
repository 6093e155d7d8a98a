"""Compiled graphs as text and for graphviz."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from shoal._api.compiled.boxes import draw
from shoal._api.compiled.drawing import as_dot, as_text
from shoal._api.graph import ClassMethodNode, InputNode, MethodOutputNode, MultiOutputNode


class Method:
    """As ``ActorMethod``, of a living actor."""

    def __init__(self, handle: Any, name: str) -> None:
        self._handle = handle
        self._name = name

    def __call__(self, *args: Any, **kwargs: Any) -> ClassMethodNode:
        return ClassMethodNode(self, self._name, args, kwargs)


def actor(number: int) -> Any:
    return SimpleNamespace(_shoal_state=SimpleNamespace(actor_id=bytes([number] * 8), class_name="Worker"))


def test_text() -> None:
    one, other = actor(0xAA), actor(0xBB)
    with InputNode() as value:
        call = Method(one, "halves")(value)
        low, high = MethodOutputNode(call, 0), MethodOutputNode(call, 1)
        output = MultiOutputNode([Method(other, "add")(low), high])
    lines = as_text(draw(output)).splitlines()
    nodes, edges, graph = (lines.index(head) for head in ("Nodes Information:", "Edges Information:", "Graph Built:"))
    assert lines[nodes + 1 : edges - 1] == [
        '0 [label="Task 0  InputNode"]',
        '1 [label="Task 1  Actor: Worker ID: aaaaaa... Method: halves"]',
        '2 [label="Task 2  ClassMethodOutputNode[0]"]',
        '3 [label="Task 3  ClassMethodOutputNode[1]"]',
        '4 [label="Task 4  Actor: Worker ID: bbbbbb... Method: add"]',
        '5 [label="Task 5  MultiOutputNode"]',
    ]
    assert lines[edges + 1 : graph - 1] == [
        f"{begin} ---> {end}" for begin, end in [(0, 1), (1, 2), (1, 3), (2, 4), (4, 5), (3, 5)]
    ]
    rows = [line.split() for line in lines[graph + 1 :]]
    assert rows == [
        ["0:InputNode"],
        ["|"],
        ["1:Actor_aaaaaa:halves"],
        ["|", "|"],
        ["2:Output[0]", "3:Output[1]"],
        ["|"],
        ["4:Actor_bbbbbb:add"],
        ["|"],
        ["5:MultiOutputNode"],
    ]


def test_graphviz() -> None:
    one = actor(1)
    with InputNode() as parts:
        first = Method(one, "f")(parts[0])
        output = Method(actor(2), "g")(Method(one, "h")(first), parts.x)
    source = as_dot(draw(output), channels=False)
    assert source.startswith("digraph compiled_graph {") and source.rstrip().endswith("}")
    assert '[label="Task 2\\nActor: Worker\\nID: 010101...\\nMethod: f"' in source
    assert source.count("fillcolor") == 7, "the driver's end too"
    assert "within the actor" not in source
    drawn = as_dot(draw(output), channels=True)
    assert '2 -> 3 [label="within the actor"]' in drawn
    assert '3 -> 5 [label="shared memory"]' in drawn
    assert '5 -> 6 [label="shared memory"]' in drawn, "to the driver"
    assert '0 -> 1 [label="within the driver"]' in drawn
