"""Machines that check themselves: at a test's end, all that it has made."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest


def deciding_classes(*packages: ModuleType) -> list[type]:
    """Those in modules of these packages that have a ``validate`` which needs nothing."""
    found: dict[type, None] = {}
    for package in packages:
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            for _, each in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
                validate = getattr(each, "validate", None)
                if validate is not None and list(inspect.signature(validate).parameters) == ["self"]:
                    found[each] = None
    return list(found)


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
