from __future__ import annotations

import traceback

from shoal_common.service.story import Story


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
