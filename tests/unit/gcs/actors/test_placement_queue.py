"""Who is asked for when, in virtual time."""

from __future__ import annotations

import pytest

from shoal_common.channel.frames import SchedulingClass
from shoal_gcs.actors.placement_queue import FIRST_PAUSE_S, LAST_PAUSE_S, WINDOW, PlacementQueue

CPU = SchedulingClass("", (("CPU", 10_000),))
GPU = SchedulingClass("", (("GPU", 10_000),))


def filled(count: int, scheduling_class: SchedulingClass = CPU, grace_s: float = 30.0) -> PlacementQueue:
    queue = PlacementQueue(grace_s)
    for i in range(count):
        queue.add(b"%03d" % i, scheduling_class, now=0.0)
    return queue


def test_asks_in_the_order_they_came_a_window_at_a_time() -> None:
    queue = filled(WINDOW + 2)
    assert queue.due(0.0) == [b"%03d" % i for i in range(WINDOW)]
    assert queue.due(0.0) == []
    assert queue.next_deadline() is None, "an answer must come first"
    queue.found(b"000")
    assert queue.due(0.0) == [], "the node may still refuse it"
    queue.accepted(b"000")
    assert queue.due(0.0) == [b"%03d" % WINDOW]


def test_without_room_only_the_first_is_asked_for_again_after_growing_pauses() -> None:
    queue = filled(3)
    assert len(queue.due(0.0)) == 3
    for actor_id in (b"000", b"001", b"002"):
        queue.no_room(actor_id, 0.0)
    now, pauses = 0.0, []
    for _ in range(10):
        deadline = queue.next_deadline()
        assert deadline is not None
        assert queue.due(deadline - 1e-6) == []
        assert queue.due(deadline) == [b"000"]
        assert queue.next_deadline() is None
        queue.no_room(b"000", deadline)
        pauses.append(round(deadline - now, 6))
        now = deadline
    assert pauses[0] == pytest.approx(FIRST_PAUSE_S)
    assert pauses == sorted(pauses)
    assert pauses[-1] == pytest.approx(LAST_PAUSE_S)


def test_a_change_ends_the_pause() -> None:
    queue = filled(2)
    queue.due(0.0)
    queue.no_room(b"000", 0.0)
    queue.no_room(b"001", 0.0)
    queue.poke(0.001)
    assert queue.due(0.001) == [b"000"]


def test_a_change_while_the_question_is_open_is_not_lost() -> None:
    queue = filled(1)
    queue.due(0.0)
    queue.poke(0.001)
    queue.no_room(b"000", 0.002)
    assert queue.due(0.002) == [b"000"]
    queue.no_room(b"000", 0.003)
    assert queue.due(0.003) == [], "one change, one further question"


def test_an_accepted_actor_opens_the_window_again() -> None:
    queue = filled(5)
    queue.due(0.0)
    for i in range(5):
        queue.no_room(b"%03d" % i, 0.0)
    queue.poke(1.0)
    assert queue.due(1.0) == [b"000"]
    queue.found(b"000")
    assert queue.due(1.0) == []
    queue.accepted(b"000")
    assert queue.due(1.0) == [b"001", b"002", b"003", b"004"]


def test_classes_do_not_wait_for_one_another() -> None:
    queue = filled(1, GPU)
    queue.due(0.0)
    queue.no_room(b"000", 0.0)
    queue.add(b"cpu", CPU, 0.0)
    assert queue.due(0.0) == [b"cpu"]


def test_a_refused_actor_keeps_its_turn() -> None:
    queue = filled(3)
    queue.due(0.0)
    queue.found(b"000")
    queue.no_room(b"001", 0.0)
    queue.no_room(b"002", 0.0)
    queue.no_room(b"000", 0.0)
    queue.poke(1.0)
    assert queue.due(1.0) == [b"000"]


def test_nodes_that_are_found_and_refuse_do_not_shorten_the_pauses() -> None:
    queue = filled(3)
    now = 0.0
    for _ in range(10):
        for actor_id in queue.due(now):
            queue.found(actor_id)
            queue.no_room(actor_id, now)
        deadline = queue.next_deadline()
        assert deadline is not None
        pause, now = deadline - now, deadline
    assert pause == pytest.approx(LAST_PAUSE_S)


def test_an_actor_whose_start_failed_waits_again() -> None:
    queue = filled(2)
    queue.due(0.0)
    queue.found(b"000")
    queue.add(b"000", CPU, 0.0, delay_s=1.0)
    assert queue.next_deadline() == 1.0
    assert queue.due(1.0) == [b"000"]


def test_a_delayed_actor_holds_nobody_up() -> None:
    queue = PlacementQueue(30.0)
    queue.add(b"late", CPU, 0.0, delay_s=5.0)
    queue.add(b"soon", CPU, 0.0)
    assert queue.due(0.0) == [b"soon"]
    assert queue.next_deadline() == 5.0
    assert queue.due(4.9) == []
    assert queue.due(5.0) == [b"late"]


def test_what_is_discarded_is_not_asked_for() -> None:
    queue = filled(2)
    queue.discard(b"000")
    queue.discard(b"000")
    assert queue.due(0.0) == [b"001"]
    queue.discard(b"001")
    assert b"001" not in queue
    queue.no_room(b"001", 0.0)
    queue.found(b"001")
    assert queue.infeasible(b"001", 0.0) == []
    assert queue.next_deadline() is None


def test_discarding_what_is_asked_for_gives_its_turn_to_the_next() -> None:
    queue = filled(WINDOW + 1)
    queue.due(0.0)
    queue.discard(b"000")
    assert queue.due(0.0) == [b"%03d" % WINDOW]


def test_adding_twice_is_adding_once() -> None:
    queue = filled(1)
    queue.add(b"000", CPU, 9.0)
    assert queue.due(0.0) == [b"000"]
    assert queue.due(9.0) == []


@pytest.mark.parametrize(("grace_s", "given_up"), [(0.0, [b"000", b"001"]), (10.0, []), (-1.0, [])])
def test_the_first_time_that_nothing_fits(grace_s: float, given_up: list[bytes]) -> None:
    queue = filled(2, grace_s=grace_s)
    queue.due(0.0)
    assert queue.infeasible(b"000", 0.0) == given_up
    assert (b"000" in queue) is not given_up.__contains__(b"000")


def test_each_has_its_own_grace() -> None:
    queue = filled(1, grace_s=10.0)
    queue.due(0.0)
    assert queue.infeasible(b"000", 0.0) == []
    queue.add(b"new", CPU, 5.0)
    queue.due(10.0)
    assert queue.infeasible(b"000", 10.0) == [b"000"]
    queue.due(15.0)
    assert queue.infeasible(b"new", 15.0) == [b"new"]


def test_the_grace_begins_anew_when_a_node_could_hold_it_meanwhile() -> None:
    queue = filled(1, grace_s=10.0)
    queue.due(0.0)
    queue.infeasible(b"000", 0.0)
    queue.due(9.0)
    queue.no_room(b"000", 9.0)
    queue.due(11.0)
    assert queue.infeasible(b"000", 11.0) == []
    queue.due(21.0)
    assert queue.infeasible(b"000", 21.0) == [b"000"]


def test_without_a_bound_it_waits_for_ever() -> None:
    queue = filled(1, grace_s=-1.0)
    for now in (0.0, 1e3, 1e6):
        assert queue.due(now) == [b"000"]
        assert queue.infeasible(b"000", now) == []


def test_who_waits_without_room() -> None:
    queue = filled(2)
    assert queue.without_room(b"000") == []
    queue.due(0.0)
    queue.no_room(b"000", 0.0)
    assert queue.without_room(b"001") == [b"000", b"001"]
    assert queue.without_room(b"unknown") == []
