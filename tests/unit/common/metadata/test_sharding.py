from __future__ import annotations

from collections import Counter

import pytest

from shoal_common.metadata.sharding import shard_of

KEYS = [f"/shoal/c/actor/{i:08x}" for i in range(2_000)]


def test_all_rows_of_one_entity_lie_together() -> None:
    for i in range(50):
        assert len({shard_of(f"/shoal/c/{table}/{i:08x}", 5) for table in ("actor", "name", "function")}) == 1


def test_what_lies_below_an_id_is_part_of_it() -> None:
    assert len({shard_of(f"/shoal/c/function/01/{i}", 5) for i in range(100)}) == 5


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_every_shard_gets_its_share(shards: int) -> None:
    counts = Counter(shard_of(key, shards) for key in KEYS)
    assert set(counts) == set(range(shards))
    assert all(0.8 < count * shards / len(KEYS) < 1.2 for count in counts.values())


def test_a_further_shard_takes_keys_and_moves_none_between_the_others() -> None:
    moved = [(before, after) for key in KEYS if (before := shard_of(key, 4)) != (after := shard_of(key, 5))]
    assert {after for _, after in moved} == {4}
    assert 0.8 < len(moved) * 5 / len(KEYS) < 1.2


def test_a_key_keeps_its_shard_for_ever() -> None:
    """Entries are found again by another version of Shoal only if these numbers never change."""
    assert [shard_of(f"/shoal/c/actor/{i}", 5) for i in range(12)] == [2, 2, 2, 2, 4, 3, 1, 3, 0, 4, 0, 0]
