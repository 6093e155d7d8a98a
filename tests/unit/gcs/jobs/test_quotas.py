from __future__ import annotations

import itertools

import pytest

from shoal_common.placement.resources import ResourceSet
from shoal_gcs.jobs.quotas import FORGOTTEN_S, PASSED_OVER_S, Allowance, Quota

A, B, C = b"node a", b"node b", b"node c"
ONE, TWO = ResourceSet.of({"CPU": 1}), ResourceSet.of({"CPU": 2})
NOTHING = ResourceSet()


class Raylets:
    """What nodes ask, in the right order."""

    def __init__(self, quota: Quota) -> None:
        self.quota = quota
        self.numbers = itertools.count(1)
        self.now = 0.0
        self.asked_back = NOTHING

    def ask(self, node: bytes, keeps: ResourceSet = NOTHING, *wants: ResourceSet) -> float:
        """How many CPUs it may use then."""
        answer = self.quota.ask(node, 1, next(self.numbers), keeps, wants, self.now)
        self.quota.validate()
        assert answer is not None
        self.asked_back = answer.asked_back
        return answer.granted.to_units().get("CPU", 0)


@pytest.fixture
def raylets() -> Raylets:
    return Raylets(Quota({"CPU": 40_000, "GPU": 0}))


def test_as_much_as_the_quota_whoever_asks(raylets: Raylets) -> None:
    assert raylets.ask(A, NOTHING, ONE, ONE, ONE) == 3
    assert raylets.ask(B, NOTHING, ONE, ONE) == 1
    assert raylets.ask(A, ONE) == 1
    assert raylets.ask(B, ONE, ONE, ONE, ONE) == 3


def test_whole_leases_only(raylets: Raylets) -> None:
    assert raylets.ask(A, NOTHING, ResourceSet.of({"CPU": 3})) == 3
    assert raylets.ask(B, NOTHING, TWO) == 0


def test_nothing_of_what_is_limited_to_nothing_and_anything_of_what_is_not_limited(raylets: Raylets) -> None:
    assert raylets.quota.take(b"actor", ResourceSet.of({"disk": 100}), 0.0)
    assert not raylets.quota.take(b"actor", ResourceSet.of({"GPU": 1}), 0.0)


def test_a_question_that_comes_again_or_too_late_changes_nothing(raylets: Raylets) -> None:
    quota = raylets.quota
    assert quota.ask(A, 1, 7, NOTHING, [ONE, ONE], 0.0) is not None
    assert quota.ask(A, 1, 7, NOTHING, [ONE, ONE], 0.0) is None
    assert quota.ask(A, 1, 6, NOTHING, [], 0.0) is None
    assert quota.left == TWO


def test_what_a_dead_node_had_is_free(raylets: Raylets) -> None:
    raylets.ask(A, NOTHING, *[ONE] * 4)
    assert raylets.quota.node_died(A) and not raylets.quota.node_died(A)
    assert raylets.ask(B, NOTHING, *[ONE] * 4) == 4


def test_actors_and_groups_hold_of_it_what_they_say(raylets: Raylets) -> None:
    quota = raylets.quota
    raylets.ask(A, NOTHING, ONE, ONE)
    assert not quota.take(b"group", ResourceSet.of({"CPU": 3}), 0.0)
    assert quota.is_waiting(b"group")
    assert quota.take(b"actor", TWO, 0.0) and quota.take(b"actor", TWO, 0.0)
    quota.holds(b"actor", ONE)
    assert quota.left == ONE
    quota.holds(b"actor", NOTHING)
    assert not quota.is_waiting(b"actor") and quota.left == TWO


def test_who_waits_for_much_is_passed_for_a_moment_only(raylets: Raylets) -> None:
    assert raylets.ask(A, NOTHING, ONE) == 1
    assert not raylets.quota.take(b"group", ResourceSet.of({"CPU": 4}), raylets.now)
    assert raylets.ask(B, NOTHING, ONE) == 1, "it has no more than the group"
    assert raylets.ask(B, ONE, ONE) == 1, "it has"
    raylets.now += PASSED_OVER_S
    assert not raylets.quota.take(b"group", ResourceSet.of({"CPU": 4}), raylets.now)
    assert raylets.ask(C, NOTHING, ONE) == 0
    assert raylets.ask(A) + raylets.ask(B) == 0
    assert raylets.quota.take(b"group", ResourceSet.of({"CPU": 4}), raylets.now)


def test_nothing_is_set_aside_for_what_waits_for_an_actor(raylets: Raylets) -> None:
    """Which may live for ever."""
    assert raylets.quota.take(b"actor", TWO, 0.0)
    assert not raylets.quota.take(b"group", ResourceSet.of({"CPU": 3}), 0.0)
    raylets.now += PASSED_OVER_S
    assert not raylets.quota.take(b"group", ResourceSet.of({"CPU": 3}), raylets.now)
    assert raylets.ask(A, NOTHING, ONE, ONE) == 2
    assert not raylets.asked_back


def test_who_has_not_asked_for_long_waits_no_more(raylets: Raylets) -> None:
    raylets.ask(A, NOTHING, *[ONE] * 4)
    raylets.quota.take(b"group", ResourceSet.of({"CPU": 4}), raylets.now)
    raylets.now += FORGOTTEN_S
    assert raylets.ask(A, ResourceSet.of({"CPU": 3}), ONE) == 4


def test_who_has_most_gives_to_who_has_less(raylets: Raylets) -> None:
    keeps = ResourceSet.of({"CPU": 4})
    raylets.ask(A, NOTHING, *[ONE] * 4)
    assert not raylets.asked_back
    assert raylets.ask(B, NOTHING, ONE, ONE) == 0
    raylets.ask(A, keeps, ONE)
    assert raylets.asked_back == ONE
    assert raylets.ask(A, keeps - ONE, ONE) == 3, "it does not get back what it gives"
    assert raylets.ask(B, NOTHING, ONE, ONE) == 1
    assert raylets.ask(A, TWO, ONE) == 2
    assert raylets.ask(B, ONE, ONE) == 2
    raylets.ask(A, TWO, ONE)
    assert not raylets.asked_back, "both have the same"


def test_as_an_earlier_gcs_has_left_it(raylets: Raylets) -> None:
    quota = Quota({"CPU": 40_000})
    quota.load({A: Allowance(1, 5, ResourceSet.of({"CPU": 3}))})
    assert quota.ask(A, 1, 5, NOTHING, [], 0.0) is None
    assert Raylets(quota).ask(B, NOTHING, ONE, ONE) == 1
