from __future__ import annotations

import pytest

from shoal_raylet.actions import PrepareEnvironment, ReleaseEnvironment
from shoal_raylet.leases.environments import IDLE_ENVIRONMENT_S, Environments


@pytest.fixture
def environments() -> Environments:
    made = Environments()
    assert made.wanted("k", "document") == [PrepareEnvironment("k", "document")]
    return made


def test_it_is_made_once_however_many_wait(environments: Environments) -> None:
    assert environments.wanted("k", "document") == []
    assert not environments.is_ready("k")
    environments.prepared("k")
    assert environments.is_ready("k") and environments.wanted("k", "document") == []


def test_one_that_failed_is_tried_again(environments: Environments) -> None:
    environments.failed("k")
    assert environments.wanted("k", "document") == [PrepareEnvironment("k", "document")]


def test_it_is_let_go_of_when_nobody_has_used_it_for_long(environments: Environments) -> None:
    environments.prepared("k")
    assert environments.let_go({"k"}, 0.0) == []
    assert environments.let_go(set(), 1.0) == []
    assert environments.next_deadline() == 1.0 + IDLE_ENVIRONMENT_S
    assert environments.let_go({"k"}, 2.0) == []
    assert environments.next_deadline() is None, "it is used again"
    assert environments.let_go(set(), 3.0) == []
    assert environments.let_go(set(), 3.0 + IDLE_ENVIRONMENT_S) == [ReleaseEnvironment("k")]
    assert not environments and not environments.is_ready("k")


def test_it_stays_while_it_is_being_made(environments: Environments) -> None:
    assert environments.let_go(set(), 0.0) == environments.let_go(set(), 9e9) == []


def test_none_is_always_there() -> None:
    assert Environments().is_ready("")
