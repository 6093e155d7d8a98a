"""Plans of compiled graphs: who runs what, and which values go through rings."""

from __future__ import annotations

from typing import Any

import pytest

from shoal._api.compiled.plan import DRIVER, Argument
from shoal._api.compiled.planning import plan
from shoal._api.graph import ClassMethodNode, InputNode, MethodOutputNode, MultiOutputNode


class Method:
    """As ``ActorMethod``, of a living actor."""

    def __init__(self, handle: str, name: str, obstacle: str = "") -> None:
        self._handle = handle
        self._name = name
        self._obstacle = lambda: obstacle

    def __call__(self, *args: Any, **kwargs: Any) -> ClassMethodNode:
        return ClassMethodNode(self, self._name, args, kwargs)


def test_a_chain() -> None:
    with InputNode() as value:
        first = Method("a", "f")(value, 5)
        second = Method("b", "g")(x=first)
    made = plan(second)
    assert made.actors == ["a", "b"]
    [(given, key)] = made.inputs
    assert key is None
    [[f], [g]] = made.steps
    assert (f.method, f.args) == ("f", [Argument(given), Argument(None, 5)])
    between = f.results[0][0]
    assert g.kwargs == {"x": Argument(between)}
    [last] = made.outputs
    assert made.readers == {given: [0], between: [1], last: [DRIVER]}
    assert (made.written(0), made.read(1), made.read(DRIVER)) == ([between], [between], [last])
    assert (made.positional, made.names, made.returns_list) == (1, [], False)


def test_an_actor_hands_values_to_itself() -> None:
    with InputNode() as value:
        first = Method("a", "f")(value)
        second = Method("a", "g")(first, value)
    made = plan(second)
    [given] = [wire for wire, _ in made.inputs]
    assert made.readers == {given: [0], made.outputs[0]: [DRIVER]}
    assert [step.method for step in made.steps[0]] == ["f", "g"]


def test_steps_are_in_the_order_of_binding_whatever_needs_them() -> None:
    with InputNode() as value:
        early = Method("a", "early")(value)
        late = Method("a", "late")(Method("b", "between")(early))
        output = MultiOutputNode([late, early])
    assert [step.method for step in plan(output).steps[0]] == ["early", "late"]


def test_readers_are_told_once() -> None:
    with InputNode() as value:
        shared = Method("a", "f")(value)
        output = MultiOutputNode([Method("b", "g")(shared, shared), Method("b", "h")(shared), shared, shared])
    made = plan(output)
    wire = made.steps[0][0].results[0][0]
    assert made.readers[wire] == [1, DRIVER]
    assert made.outputs[2:] == [wire, wire]
    assert made.returns_list


def test_several_values_of_one_call() -> None:
    with InputNode() as value:
        call = Method("a", "f")(value)
        _unused, second = MethodOutputNode(call, 0), MethodOutputNode(call, 1)
    made = plan(second)
    [step] = made.steps[0]
    assert (made.outputs[0], 1) in step.results
    assert made.readers.keys() == {made.inputs[0][0], made.outputs[0]}


def test_parts_of_the_input() -> None:
    with InputNode() as value:
        output = Method("a", "f")(value[1], value.name, value["other"])
    made = plan(output)
    assert [key for _, key in made.inputs] == [1, "name", "other"]
    assert (made.positional, made.names) == (2, ["name", "other"])


def test_what_is_refused() -> None:
    def bound(*values: Any) -> ClassMethodNode:
        return Method("a", "f")(*values)

    with InputNode() as one, InputNode() as two:
        with pytest.raises(AssertionError, match="More than one InputNode"):
            plan(bound(one, two))
    with InputNode() as value:
        for output in (MultiOutputNode([value]), value):
            with pytest.raises(ValueError, match="what methods of actors return"):
                plan(bound(value) and output)
    with InputNode() as value, pytest.raises(ValueError, match=r"ClassMethodNode\(f\(\)\) cannot be.*: it is Monday"):
        plan(Method("a", "f", "it is Monday")(value))
    with InputNode() as value:
        bound(value)
        with pytest.raises(ValueError, match=r"1 leaf nodes in the DAG.*\['f'\]"):
            plan(Method("b", "g")(value))
