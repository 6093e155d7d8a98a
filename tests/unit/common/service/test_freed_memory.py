from __future__ import annotations

from shoal_common.service.freed_memory import WORTH_BYTES, Growth


def test_it_is_worth_it_after_so_much_growth() -> None:
    growth = Growth()
    assert not growth.is_worth_it(50), "what a service needs at its start"
    assert not growth.is_worth_it(50 + WORTH_BYTES - 1)
    assert growth.is_worth_it(50 + WORTH_BYTES)


def test_what_could_not_be_given_back_is_needed() -> None:
    growth = Growth()
    growth.is_worth_it(0)
    assert growth.is_worth_it(3 * WORTH_BYTES)
    growth.given_back(2 * WORTH_BYTES)
    assert not growth.is_worth_it(2 * WORTH_BYTES)
    assert growth.is_worth_it(3 * WORTH_BYTES)


def test_less_than_ever_is_the_new_beginning() -> None:
    growth = Growth()
    growth.is_worth_it(5 * WORTH_BYTES)
    assert not growth.is_worth_it(WORTH_BYTES)
    assert growth.is_worth_it(2 * WORTH_BYTES)
