"""How a graph becomes a plan, and which graphs cannot. Pure: nodes in, a plan out."""

from __future__ import annotations

from typing import Any

from shoal._api.compiled.plan import DRIVER, Argument, Plan, Step
from shoal._api.graph import (
    ClassMethodNode,
    ClassNode,
    DAGNode,
    FunctionNode,
    InputAttributeNode,
    InputNode,
    MethodOutputNode,
    MultiOutputNode,
    nodes_in,
)


def plan(output: DAGNode) -> Plan:
    """Raises: ValueError, AssertionError, NotImplementedError for a graph that cannot be compiled, with the reason."""
    nodes = _connected(output)
    _check(nodes, output)
    last = output.get_args() if isinstance(output, MultiOutputNode) else (output,)
    needed = set(output._order())
    calls = [node for node in nodes if type(node) is ClassMethodNode and node in needed]
    actors: list[Any] = []
    numbers: dict[DAGNode, int] = {}
    for call in calls:
        handle = call._actor_handle()
        if handle not in actors:
            actors.append(handle)
        numbers[call] = actors.index(handle)
    wires: dict[DAGNode, int] = {node: number for number, node in enumerate(nodes)}
    makers: dict[int, int] = {wires[node]: numbers.get(_call_of(node), DRIVER) for node in nodes if node in needed}
    readers: dict[int, list[int]] = {}

    def read(node: DAGNode, reader: int) -> int:
        wire = wires[node]
        if makers[wire] != reader and reader not in readers.setdefault(wire, []):
            readers[wire].append(reader)
        return wire

    def argument(value: Any, reader: int) -> Argument:
        return Argument(read(value, reader)) if isinstance(value, DAGNode) else Argument(None, value)

    steps: list[list[Step]] = [[] for _ in actors]
    for call in calls:
        reader = numbers[call]
        parts = [node for node in nodes if isinstance(node, MethodOutputNode) and node.get_args()[0] is call]
        results: list[tuple[int, int | None]] = [(wires[call], None)]
        results += [(wires[part], part._index) for part in parts if part in needed]
        steps[reader].append(
            Step(
                call.get_method_name(),
                [argument(value, reader) for value in call.get_args()],
                {name: argument(value, reader) for name, value in call.get_kwargs().items()},
                results,
            )
        )
    outputs = [read(node, DRIVER) for node in last]
    given = [node for node in nodes if isinstance(node, InputNode | InputAttributeNode) and wires[node] in readers]
    keys = [node._key for node in given if isinstance(node, InputAttributeNode)]
    places = [key for key in keys if isinstance(key, int)]
    return Plan(
        actors=actors,
        steps=steps,
        readers=readers,
        inputs=[(wires[node], node._key if isinstance(node, InputAttributeNode) else None) for node in given],
        outputs=outputs,
        returns_list=isinstance(output, MultiOutputNode),
        positional=max(places, default=-1) + 1 if keys else 1,
        names=[key for key in keys if isinstance(key, str)],
    )


def _call_of(node: DAGNode) -> DAGNode:
    call: DAGNode = node.get_args()[0] if isinstance(node, MethodOutputNode) else node
    return call


def _connected(output: DAGNode) -> list[DAGNode]:
    """All nodes that have to do with ``output``, in the order in which they were made."""
    found = {output}
    unseen = [output]
    while unseen:
        node = unseen.pop()
        for other in (*node._needs(), *node._followers):
            if other not in found:
                found.add(other)
                unseen.append(other)
    return sorted(found, key=lambda node: node._number)


def _check(nodes: list[DAGNode], output: DAGNode) -> None:
    """Raises: as ``plan``."""
    for node in nodes:
        _check_kind(node)
    inputs = [node for node in nodes if isinstance(node, InputNode)]
    if not inputs:
        raise ValueError("No InputNode found in the DAG: it is what starts an execution")
    if len(inputs) > 1:
        raise AssertionError("More than one InputNode found")
    last = list(output.get_args()) if isinstance(output, MultiOutputNode) else [output]
    if not last or not all(isinstance(node, ClassMethodNode) for node in last):
        raise ValueError("The outputs of a compiled graph are what methods of actors return, and at least one")
    needed = set(output._order())
    calls = [node for node in nodes if type(node) is ClassMethodNode]
    for call in calls:
        _check_call(call)
    leaves = [call.get_method_name() for call in calls if call not in needed]
    if leaves:
        raise ValueError(
            "Compiled DAG doesn't support leaf nodes, i.e., nodes that don't have downstream nodes and are not output "
            f"nodes. There are {len(leaves)} leaf nodes in the DAG. Please add the outputs of {leaves} to the "
            "MultiOutputNode."
        )
    used = [node for node in _arguments(calls) if isinstance(node, InputNode | InputAttributeNode)]
    if len({isinstance(node, InputNode) for node in used}) > 1:
        raise ValueError(
            "All tasks must either use InputNode() directly, or they must index to specific args or kwargs."
        )
    parts = [node for node in nodes if isinstance(node, InputAttributeNode)]
    unused = [str(part._key) for part in parts if part not in used]
    if unused:
        raise ValueError(
            "Compiled Graph expects input to be accessed using all of attributes "
            f"{', '.join(str(part._key) for part in parts)}, but {', '.join(unused)} "
            f"{'is' if len(unused) == 1 else 'are'} unused. Ensure all input attributes are used and contribute to the "
            "computation of the Compiled Graph output."
        )


def _check_kind(node: DAGNode) -> None:
    if isinstance(node, FunctionNode):
        raise NotImplementedError("Compiled DAGs currently only support actor method nodes: tasks have no process")
    if isinstance(node, ClassNode) or (isinstance(node, ClassMethodNode) and node._actor_handle() is None):
        raise ValueError("Compiled DAGs can only bind methods to an actor that is already created with Actor.remote()")


def _check_call(call: ClassMethodNode) -> None:
    values = [*call.get_args(), *call.get_kwargs().values()]
    if not any(isinstance(value, DAGNode) for value in values):
        raise ValueError(
            "Compiled DAGs require each task to take a ray.dag.InputNode or at least one other DAGNode as an input. "
            f"{call!r} takes none, so nothing would ever start it."
        )
    nested = [value for value in values if not isinstance(value, DAGNode) and any(nodes_in(value))]
    if nested:
        raise ValueError(
            f"{call!r} of a compiled graph is given {nested[0]!r} with nodes inside: bind each node as an argument of "
            "its own."
        )
    if problem := call._obstacle():
        raise ValueError(f"{call!r} cannot be part of a compiled graph: {problem}")


def _arguments(calls: list[ClassMethodNode]) -> list[DAGNode]:
    return [
        value
        for call in calls
        for value in (*call.get_args(), *call.get_kwargs().values())
        if isinstance(value, DAGNode)
    ]
