"""What the driver checks before it starts its cluster."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from shoal._launch import embedded


def test_a_head_that_is_not_installed_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec

    def find(name: str) -> Any:
        return None if name == "shoal_head" else find_spec(name)

    monkeypatch.setattr(importlib.util, "find_spec", find)
    with pytest.raises(RuntimeError, match=r"shoal_head is not installed: pip install 'shoal\[local\]'"):
        embedded.check_installed()
