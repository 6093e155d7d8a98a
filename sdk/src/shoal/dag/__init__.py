"""Graphs of tasks and actor calls, as ``ray.dag``: bound first, executed as often as one likes.

from shoal.dag import InputNode

with InputNode() as x:
    graph = add.bind(double.bind(x), 1)
assert shoal.get(graph.execute(20)) == 41
"""

from __future__ import annotations

from shoal._api.compiled.settings import DAGContext
from shoal._api.graph import (
    ClassMethodNode,
    ClassNode,
    DAGInputData,
    DAGNode,
    FunctionNode,
    InputAttributeNode,
    InputNode,
    MultiOutputNode,
)

__all__ = [
    "ClassMethodNode",
    "ClassNode",
    "DAGContext",
    "DAGInputData",
    "DAGNode",
    "FunctionNode",
    "InputAttributeNode",
    "InputNode",
    "MultiOutputNode",
]
