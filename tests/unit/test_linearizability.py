"""The judge of histories knows a right one from a wrong one: by example of a register that is set once and cleared."""

from __future__ import annotations

from itertools import permutations
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from support.linearizability import Linearization, Operation


def step(state: str | None, what: tuple[str, ...]) -> tuple[str | None, Any]:
    """``("set", value)``: whether it was free; ``("clear", value)``; ``("get",)``."""
    match what:
        case ("set", value):
            return state or value, state is None
        case ("clear", value):
            return None if state == value else state, None
        case _:
            return state, state


REGISTER = Linearization[str | None](None, step)


def explained(*history: Operation) -> bool:
    return REGISTER.order(history) is not None


def test_one_after_the_other() -> None:
    first = Operation(("set", "a"), 0, 1, True)
    assert explained(first, Operation(("get",), 2, 3, "a"))
    assert not explained(first, Operation(("get",), 2, 3, None)), "what has returned has happened"
    assert not explained(first, Operation(("set", "b"), 2, 3, True)), "one of them must have failed"
    assert explained(first, Operation(("set", "b"), 2, 3, False), Operation(("get",), 4, 5, "a"))


def test_at_the_same_time() -> None:
    first = Operation(("set", "a"), 0, 9, True)
    assert explained(first, Operation(("get",), 1, 2, None), Operation(("get",), 3, 4, "a"))
    assert not explained(first, Operation(("get",), 1, 2, "a"), Operation(("get",), 3, 4, None))


def test_nobody_knows_what_came_of_it() -> None:
    unknown = Operation(("set", "a"), 0)
    assert explained(unknown, Operation(("get",), 5, 6, None), Operation(("get",), 7, 8, "a"))
    assert explained(unknown, Operation(("set", "b"), 5, 6, True)), "it took no effect, or later"
    assert not explained(unknown, Operation(("get",), 5, 6, "a"), Operation(("get",), 7, 8, None))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5), st.sampled_from("gsc"), st.booleans()), max_size=5))
def test_it_finds_an_order_exactly_when_there_is_one(drawn: list[tuple[int, int, str, bool]]) -> None:
    kinds = {"g": ("get",), "s": ("set", "a"), "c": ("clear", "a")}
    results = {"g": ("a", None), "s": (True, False), "c": (None, None)}
    history = [Operation(kinds[k], at, at + length, results[k][flag]) for at, length, k, flag in drawn]

    def explains(order: tuple[Operation, ...]) -> bool:
        state = None
        for number, operation in enumerate(order):
            state, result = step(state, operation.what)
            if result != operation.result or any(later.returned < operation.called for later in order[number:]):
                return False
        return True

    assert explained(*history) == any(map(explains, permutations(history)))
