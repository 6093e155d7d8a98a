"""When garbage is collected for somebody who waits: in virtual time."""

from __future__ import annotations

import itertools

from shoal_common.placement.resources import ResourceSet
from shoal_raylet.leases.starvation import FIRST_PAUSE_S, LAST_PAUSE_S, QUIET_S, Starvation

ONE, TWO, THREE = (ResourceSet.of({"CPU": count}) for count in (1, 2, 3))
NOTHING = ResourceSet()


def found(starvation: Starvation, need: ResourceSet, coming: ResourceSet, now: float) -> bool:
    """On a node of two CPUs."""
    return starvation.found([need], TWO, lambda: coming, now)


def test_who_needs_what_actors_hold_starves() -> None:
    assert found(Starvation(), TWO, ONE, 0.0)


def test_what_is_free_or_leased_is_waited_for_and_what_the_node_never_has_too() -> None:
    assert not found(Starvation(), ONE, ONE, 0.0)
    assert not found(Starvation(), THREE, NOTHING, 0.0)
    assert not Starvation().found([], TWO, lambda: NOTHING, 0.0)


def test_it_is_told_again_after_growing_pauses() -> None:
    starvation, told, now = Starvation(), [], 0.0
    while now < 300:
        if found(starvation, ONE, NOTHING, now):
            told.append(now)
        now += 0.5
    pauses = [after - before for before, after in itertools.pairwise(told)]
    assert pauses[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert pauses[-1] == LAST_PAUSE_S


def test_after_a_quiet_time_the_pauses_begin_anew() -> None:
    starvation = Starvation()
    assert found(starvation, ONE, NOTHING, 0.0)
    assert found(starvation, ONE, NOTHING, FIRST_PAUSE_S)
    later = 2 * QUIET_S
    assert found(starvation, ONE, NOTHING, later)
    assert found(starvation, ONE, NOTHING, later + FIRST_PAUSE_S)
