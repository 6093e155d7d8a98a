from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.machines import deciding_classes, validated

import shoal._core

DECIDING = deciding_classes(shoal._core)


@pytest.fixture(autouse=True)
def _validated(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with validated(monkeypatch, *DECIDING):
        yield
