from __future__ import annotations

import pytest

from shoal_common.placement.resources import ResourceSet
from shoal_raylet.leases.resource_ledger import ResourceLedger


def units(**amounts: float) -> ResourceSet:
    return ResourceSet.of(amounts)


def test_what_is_held_is_not_available_and_comes_back() -> None:
    ledger = ResourceLedger(units(CPU=2, disk=1))
    ledger.allocate(b"w", units(CPU=1.5))
    assert ledger.available == units(CPU=0.5, disk=1)
    assert not ledger.can_hold(units(CPU=1))
    ledger.release(b"w")
    ledger.release(b"w")
    assert ledger.available == ledger.total


def test_a_tenth_ten_times_is_one() -> None:
    ledger = ResourceLedger(units(CPU=1))
    for i in range(10):
        ledger.allocate(bytes([i]), units(CPU=0.1))
    assert ledger.available == units()


def test_only_the_cpu_is_lent_and_taken_back_on_credit() -> None:
    ledger = ResourceLedger(units(CPU=1, memory=4))
    ledger.allocate(b"parent", units(CPU=1, memory=4))
    ledger.lend_cpu(b"parent")
    ledger.lend_cpu(b"parent")
    assert ledger.available == units(CPU=1)
    ledger.allocate(b"child", units(CPU=1))
    ledger.take_back_cpu(b"parent")
    ledger.take_back_cpu(b"parent")
    assert ledger.available["CPU"] == -10_000
    assert not ledger.can_hold(units(CPU=0.1))
    assert ledger.can_hold(units())
    ledger.release(b"child")
    assert ledger.available == units()


def test_a_holder_that_dies_while_it_lends_gives_nothing_twice() -> None:
    ledger = ResourceLedger(units(CPU=1))
    ledger.allocate(b"parent", units(CPU=1))
    ledger.lend_cpu(b"parent")
    ledger.release(b"parent")
    assert ledger.available == ledger.total


def test_fractions_share_a_device_and_whole_amounts_get_whole_ones() -> None:
    ledger = ResourceLedger(units(CPU=8, GPU=2), {"GPU": ["0", "3"]})
    assert ledger.allocate(b"a", units(GPU=0.4)).devices == {"GPU": ["0"]}
    assert ledger.allocate(b"b", units(GPU=0.6)).devices == {"GPU": ["0"]}
    assert ledger.allocate(b"c", units(GPU=1)).devices == {"GPU": ["3"]}
    assert not ledger.can_hold(units(GPU=0.1))
    ledger.release(b"c")
    assert ledger.can_hold(units(GPU=1))


def test_a_sum_of_fractions_is_not_a_device() -> None:
    ledger = ResourceLedger(units(GPU=2), {"GPU": ["0", "1"]})
    for i in range(2):
        ledger.allocate(bytes([i]), units(GPU=0.7))
    assert not ledger.can_hold(units(GPU=0.6))
    ledger.release(b"\0")
    assert ledger.can_hold(units(GPU=1))
    assert not ledger.can_hold(units(GPU=2))


def test_a_second_allocation_of_one_holder_is_an_error() -> None:
    ledger = ResourceLedger(units(CPU=2))
    ledger.allocate(b"w", units(CPU=1))
    with pytest.raises(ValueError, match="cannot be given"):
        ledger.allocate(b"w", units(CPU=1))


def test_which_gpus_it_would_be_is_known_before() -> None:
    ledger = ResourceLedger(ResourceSet.of({"CPU": 4, "GPU": 3}), {"GPU": ["0", "1", "2"]})
    for holder, amount in ((b"a", 0.5), (b"b", 2), (b"c", 0.5)):
        wanted = ResourceSet.of({"CPU": 1, "GPU": amount})
        told = ledger.gpus_for(wanted)
        assert sorted(ledger.allocate(holder, wanted).devices["GPU"]) == list(told)
    assert ledger.gpus_for(ResourceSet.of({"CPU": 1})) == ()
