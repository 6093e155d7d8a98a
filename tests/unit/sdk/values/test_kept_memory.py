"""Memory of long values: kept from the first one on, given back once when none has come for a moment."""

from __future__ import annotations

import ctypes

from shoal._values.kept_memory import KEPT_S, Heap, KeptMemory


class Calls(Heap):
    """What the heap is told."""

    def __init__(self) -> None:
        super().__init__(ctypes.CDLL(None))
        self.told: list[str] = []

    def keep(self, limit: int) -> None:
        self.told.append(f"keep {limit >> 20}")

    def give_back(self) -> None:
        self.told.append("give back")


def test_kept_as_long_as_values_are_made() -> None:
    heap = Calls()
    kept = KeptMemory(heap)
    kept.tick(100.0)
    assert heap.told == []
    for now in (100.0, 100.0 + KEPT_S, 100.0 + 2 * KEPT_S):
        kept.made(now)
        kept.tick(now + KEPT_S / 2)
    assert heap.told == ["keep 64"]


def test_given_back_once_a_moment_after_the_last_and_kept_again_from_the_next() -> None:
    heap = Calls()
    kept = KeptMemory(heap)
    kept.made(100.0)
    kept.tick(100.1 + KEPT_S)
    kept.tick(200.0)
    assert heap.told == ["keep 64", "give back"]
    kept.made(300.0)
    kept.tick(300.1)
    assert heap.told == ["keep 64", "give back", "keep 64"]
