"""Spills and restores are told once a minute, added up."""

from __future__ import annotations

from shoal_raylet.objects.spill_tally import SpillTally


def test_a_minute_is_one_event_of_each_kind() -> None:
    tally = SpillTally()
    assert tally.told(0) == []
    for second in range(50):
        tally.spilled(4, 80_000_000, 100.0 + second)
    tally.restored(1_500_000, 130)
    tally.failed("no space left", 140)
    assert tally.told(159.9) == []
    spilled, restored, failed = tally.told(160)
    assert spilled.message == "Spilled 200 objects, 4.00 GB, in 60 s: its store was full"
    assert restored.message == "Restored 1 object, 1.5 MB, in 60 s"
    assert (failed.kind, failed.severity) == ("SPILLING_FAILED", "WARNING") and "no space left" in failed.message


def test_what_is_told_is_not_told_again() -> None:
    tally = SpillTally()
    tally.restored(1, 0)
    assert len(tally.told(60)) == 1
    assert tally.told(1_000) == []
    tally.restored(1, 1_000)
    assert tally.told(1_059) == []
    assert [each.kind for each in tally.told(1_060)] == ["OBJECTS_RESTORED"]
