from __future__ import annotations

import random

import pytest

from shoal_common.errors import NotFound, Unavailable
from shoal_common.rpc.client import retrying
from shoal_common.rpc.retry import RetryPolicy

AT_ONCE = RetryPolicy(attempts=3, initial_s=0.0)


def test_pauses_are_bounded_in_number_and_length() -> None:
    policy = RetryPolicy(attempts=6, initial_s=0.1, maximum_s=0.5)
    for seed in range(50):
        pauses = list(policy.pauses(random.Random(seed)))
        assert len(pauses) == 5
        assert all(bound / 2 <= pause <= bound for pause, bound in zip(pauses, [0.1, 0.2, 0.4, 0.5, 0.5], strict=True))


def test_the_jitter_is_the_injected_one() -> None:
    policy = RetryPolicy()
    assert list(policy.pauses(random.Random(1))) == list(policy.pauses(random.Random(1)))
    assert list(policy.pauses(random.Random(1))) != list(policy.pauses(random.Random(2)))


class Service:
    """Fails with ``errors`` one after the other, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


async def test_it_is_tried_again_while_unavailable() -> None:
    service = Service(Unavailable("away"), Unavailable("still away"))
    assert await retrying(service, AT_ONCE) == "answer"
    assert service.calls == 3


async def test_it_gives_up_after_the_last_attempt() -> None:
    service = Service(*(Unavailable(f"away {n}") for n in range(9)))
    with pytest.raises(Unavailable, match="away 2"):
        await retrying(service, AT_ONCE)
    assert service.calls == 3


async def test_other_errors_end_it_at_once() -> None:
    service = Service(NotFound("no such thing"))
    with pytest.raises(NotFound):
        await retrying(service, AT_ONCE)
    assert service.calls == 1


async def test_what_is_tried_again_and_who_hears_of_it_is_the_callers_choice() -> None:
    service = Service(NotFound("not yet"), Unavailable("away"))
    heard: list[str] = []
    answer = await retrying(service, AT_ONCE, on=(NotFound, Unavailable), failed=lambda error: heard.append(str(error)))
    assert (answer, heard) == ("answer", ["not yet", "away"])


async def test_without_an_end_it_goes_on_until_nothing_is_left_to_do() -> None:
    service = Service(*(Unavailable("away") for _ in range(99)))
    for_ever = RetryPolicy(attempts=None, initial_s=0.0)
    assert await retrying(service, for_ever, until=lambda: service.calls == 20) is None
    assert service.calls == 20


async def test_what_is_not_needed_is_not_tried_at_all() -> None:
    service = Service()
    assert await retrying(service, AT_ONCE, until=lambda: True) is None
    assert service.calls == 0
