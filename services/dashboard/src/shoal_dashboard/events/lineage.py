"""Who submits what: the tasks of a job as a tree, collapsed by function. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from shoal_common.events.task_events import TaskKind, TaskState
from shoal_dashboard.events.rows import LineageNode

#: A function that submits itself, directly or not, is not followed any further; and nothing is deeper than this.
MAX_DEPTH = 50
_Child = tuple[str, int]


def lineage_of(counted: Iterable[tuple[str, str, int, int, int]]) -> list[LineageNode]:
    """``counted``: by function of the parent ("" = a driver, or a task that has no row), function, kind and state: how
    many. The most frequent first."""
    children: dict[str, dict[_Child, dict[str, int]]] = defaultdict(lambda: defaultdict(dict))
    for parent, function, kind, state, count in counted:
        children[parent][function, kind][TaskState(state).name] = count

    def below(parent: str, path: frozenset[str]) -> list[LineageNode]:
        nodes = [
            LineageNode(
                function,
                TaskKind(kind).name,  # type: ignore[arg-type]  # the same names
                states,
                below(function, path | {function}) if function not in path and len(path) < MAX_DEPTH else [],
            )
            for (function, kind), states in children.get(parent, {}).items()
        ]
        return sorted(nodes, key=lambda node: (-sum(node.states.values()), node.func_or_class_name))

    return below("", frozenset())
