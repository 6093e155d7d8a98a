"""Who calls whom in a job, collapsed by function, with the states of their tasks. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from shoal_dashboard.events.rows import Calls, FunctionCounts

#: Functions that are told apart, those with most tasks; the others are one.
MAX_FUNCTIONS = 40
#: What has submitted the tasks that no other task has.
DRIVER = "driver"


@dataclass(frozen=True, slots=True)
class Function:
    """``states``: how many of its tasks are in each, exact."""

    name: str
    states: dict[str, int]
    #: It stands for more than one.
    collapsed: bool = False

    @property
    def tasks(self) -> int:
        return sum(self.states.values())


@dataclass(frozen=True, slots=True)
class CallGraph:
    #: The driver first, then those with most tasks first.
    functions: list[Function]
    #: By names of caller and callee.
    calls: dict[tuple[str, str], int]


def call_graph(counts: Iterable[FunctionCounts], calls: Iterable[Calls]) -> CallGraph:
    states: dict[str, Counter[str]] = {}
    for each in counts:
        states.setdefault(each.func_or_class_name, Counter()).update(each.states)
    called = list(calls)
    for call in called:
        for name in (call.caller, call.function):
            if name:
                states.setdefault(name, Counter())
    names = sorted(states, key=lambda name: (-states[name].total(), name))
    shown, hidden = names[:MAX_FUNCTIONS], names[MAX_FUNCTIONS:]
    others = f"{len(hidden)} other functions"
    drawn = {"": DRIVER, **{name: name for name in shown}, **dict.fromkeys(hidden, others)}
    functions = [Function(name, dict(states[name])) for name in shown]
    if hidden:
        sums: Counter[str] = Counter()
        for name in hidden:
            sums.update(states[name])
        functions.append(Function(others, dict(sums), collapsed=True))
    lines: Counter[tuple[str, str]] = Counter()
    for call in called:
        lines[drawn[call.caller], drawn[call.function]] += call.count
    if any(caller == DRIVER for caller, _ in lines):
        functions.insert(0, Function(DRIVER, {}, collapsed=True))
    return CallGraph(functions, dict(lines))
