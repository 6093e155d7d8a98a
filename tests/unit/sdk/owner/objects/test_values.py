"""``put`` and ``get``: small values here, large ones in the store; lent to others as long as they hold them."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from support.owners import ARENA_BYTES, LONG, Party, settle

from shoal import exceptions
from shoal._core.objects import MAX_INLINE_BYTES
from shoal_common.channel import frames

SMALL, LARGE = b"x" * 10, b"x" * (MAX_INLINE_BYTES + 1)


def borrowed(lender: Party, borrower: Party, ref: Any) -> Any:
    """The reference as it comes out of a value that ``borrower`` has read."""
    with borrower.core.lock:
        twin = borrower.core.borrowing.restore(ref.binary(), lender.core.address)
        borrower.core.borrowing.register([twin])
    return twin


def test_small_values_go_nowhere(driver: Party) -> None:
    ref = driver.core.values.put([SMALL])
    assert driver.get(ref) == [SMALL]
    assert not driver.raylet.all(frames.ObjectCreate)


def test_large_values_lie_in_the_store_until_nobody_holds_them(driver: Party) -> None:
    ref = driver.core.values.put(LARGE)
    object_id = ref.binary()
    assert driver.raylet.wait_for(frames.ObjectSeal).object_id == object_id
    assert driver.get(ref) == LARGE
    del ref
    gc.collect()
    driver.core.borrowing.collect()
    assert driver.raylet.wait_for(frames.ObjectFree).object_ids == [object_id]


def test_what_finds_no_room_is_not_there(driver: Party) -> None:
    with pytest.raises(exceptions.ObjectStoreFullError, match="no room"):
        driver.core.values.put(b"x" * 2 * ARENA_BYTES)
    assert driver.raylet.wait_for(frames.ObjectAbort).object_id == driver.raylet.all(frames.ObjectCreate)[0].object_id
    assert not driver.raylet.all(frames.ObjectSeal)


@pytest.mark.parametrize("value", [SMALL, LARGE], ids=["small", "large"])
def test_a_borrower_keeps_the_object(driver: Party, worker: Party, value: bytes) -> None:
    ref = driver.core.values.put([value])
    object_id = ref.binary()
    twin = borrowed(driver, worker, ref)
    if value is SMALL:  # the parties' raylets are two, and what is large lies in one of them
        assert worker.get(twin) == [value]
    settle(driver, worker)
    del ref
    gc.collect()
    driver.core.borrowing.collect()
    assert object_id in driver.core.table.entries
    del twin
    gc.collect()
    worker.core.borrowing.collect()
    settle(driver, worker)
    assert object_id not in driver.core.table.entries


def test_a_borrower_waits_for_a_value_that_is_being_made(driver: Party, worker: Party) -> None:
    (ref,) = driver.submit()
    twin = borrowed(driver, worker, ref)
    with pytest.raises(exceptions.GetTimeoutError):
        worker.core.values.get_one(twin, 0.001)
    driver.grant(worker)
    worker.answer(*worker.work.next(), "made")
    assert worker.get(twin) == "made"


def test_with_its_owner_a_borrowed_object_is_lost(driver: Party, worker: Party) -> None:
    (ref,) = driver.submit()
    twin = borrowed(driver, worker, ref)
    settle(driver, worker)
    driver.close()
    with pytest.raises(exceptions.OwnerDiedError):
        worker.get(twin)


def test_an_object_that_was_freed_is_said_to_be_lost(driver: Party, worker: Party) -> None:
    ref = driver.core.values.put(SMALL)
    object_id = ref.binary()
    del ref
    gc.collect()
    driver.core.borrowing.collect()
    with worker.core.lock:
        twin = worker.core.borrowing.restore(object_id, driver.core.address)
    with pytest.raises(exceptions.ReferenceCountingAssertionError):
        worker.core.values.get_one(twin, LONG)
