from __future__ import annotations

import traceback

import pytest

from shoal_common.service.story import MAX_TEXT, Story, explained, noted


def test_a_defect_tells_the_last_events_of_its_machine_oldest_first() -> None:
    story = Story("the queue", length=2)
    story.note("began")
    story.note("granted", b"\x01\xff")
    story.note("lost", 7)
    defect = AssertionError("idle and busy")
    story.explain(defect)
    assert traceback.format_exception_only(defect)[1:] == ["Last events of the queue: granted 01ff; lost 7\n"]


def test_a_defect_that_passes_through_a_machine_twice_tells_it_once() -> None:
    story, other = Story("inner"), Story("outer")
    story.note("began")
    defect = KeyError("x")
    for each in (story, story, other):
        each.explain(defect)
    assert defect.__notes__ == ["Last events of inner: began", "Last events of outer: none"]


class Machine:
    def __init__(self) -> None:
        self._story = Story("the machine")

    @noted
    def begun(self, number: int, *, fails: bool = False) -> int:
        if fails:
            raise ValueError("broken")
        return number

    @noted
    def named(self, name: str) -> None: ...

    @explained
    def decide(self) -> None:
        raise KeyError("x")


def test_a_method_is_noted_by_its_name_and_first_argument() -> None:
    machine = Machine()
    assert machine.begun(1) == 1
    with pytest.raises(ValueError, match="broken") as caught:
        machine.begun(2, fails=True)
    assert caught.value.__notes__ == ["Last events of the machine: begun 1; begun 2"]


def test_what_only_follows_from_what_happens_tells_it_and_is_not_noted() -> None:
    machine = Machine()
    machine.named("x" * 1000)
    for _ in range(2):
        with pytest.raises(KeyError) as caught:
            machine.decide()
        assert caught.value.__notes__ == [f"Last events of the machine: named {'x' * MAX_TEXT}"]
