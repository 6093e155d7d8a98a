from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.machines import deciding_classes, validated

import shoal_raylet.leases
import shoal_raylet.objects

DECIDING = deciding_classes(shoal_raylet.leases, shoal_raylet.objects)


@pytest.fixture(autouse=True)
def _validated(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with validated(monkeypatch, *DECIDING):
        yield
