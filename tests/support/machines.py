"""Machines that check themselves: at a test's end, all that it has made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def validated(monkeypatch: pytest.MonkeyPatch, *kinds: type[Any]) -> Iterator[None]:
    """Every instance of ``kinds`` that is made meanwhile is asked to ``validate()`` itself at the end."""
    made: list[Any] = []
    for kind in kinds:

        def remember(self: Any, *args: Any, _init: Any = kind.__init__, **kwargs: Any) -> None:
            _init(self, *args, **kwargs)
            made.append(self)

        monkeypatch.setattr(kind, "__init__", remember)
    yield
    for machine in made:
        machine.validate()
