"""What a compiled graph is made of: which actor runs which methods in which order, and which value goes to whom.

Each value of the graph (an input, or what a method returns) is a *wire*. One that another process needs goes through
a ring; an actor hands the others to itself. Every actor runs its methods in the order in which they were bound. As a
node can only be bound to nodes that exist, that is an order in which everything can run: nobody ever waits in a circle.

Pure: nodes in, a plan out.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

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

#: Among the readers of a wire.
DRIVER = -1


class Argument(NamedTuple):
    """Of a method: the value of a wire, or where that is None, always the same value."""

    wire: int | None
    value: Any = None


class Step(NamedTuple):
    """One call of a method in each execution."""

    method: str
    args: list[Argument]
    kwargs: dict[str, Argument]
    #: What becomes of the result: the wires that it goes to, and which of several values it is; None = the whole.
    results: list[tuple[int, int | None]]


class Plan(msgspec.Struct):
    """``readers``: of each wire that goes through a ring, the actors (by number) and ``DRIVER``."""

    #: Handles, by number.
    actors: list[Any]
    #: By the actor's number.
    steps: list[list[Step]]
    readers: dict[int, list[int]]
    #: What the driver writes: the wire, and which part of the arguments; None = the one argument there is.
    inputs: list[tuple[int, int | str | None]]
    #: What it reads, in the order of the results.
    outputs: list[int]
    #: Whether an execution gives a list.
    returns_list: bool
    positional: int
    names: list[str]

    def written(self, actor: int) -> list[int]:
        """Rings that an actor writes."""
        return [wire for step in self.steps[actor] for wire, _ in step.results if wire in self.readers]

    def read(self, actor: int) -> list[int]:
        """Rings that an actor, or the driver, reads."""
        return [wire for wire, readers in self.readers.items() if actor in readers]


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
