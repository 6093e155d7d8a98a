"""What a node has when nothing is said."""

from __future__ import annotations

import pytest

from shoal._launch import node_resources

GB = 1000**3


@pytest.mark.parametrize(
    ("available", "memory", "store"),
    [
        (10 * GB, 7 * GB, 3 * GB),
        (1000 * GB, 700 * GB, 200 * GB),  # shared memory of more is not taken unasked
        (GB // 10, GB * 7 // 100, node_resources.MIN_STORE_BYTES),
    ],
)
def test_shares_of_the_memory(available: int, memory: int, store: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_resources, "available_memory", lambda: available)
    amounts = node_resources.node_resources(None, None, None, None, None)
    assert (amounts["memory"], amounts["object_store_memory"]) == (memory, store)
