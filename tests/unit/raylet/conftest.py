"""Each deciding object of the raylet that a test has made must be sound when the test ends."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import pytest

import shoal_raylet.leases
import shoal_raylet.objects


def _deciding_classes() -> list[type]:
    """Those with a ``validate`` that needs nothing."""
    found: dict[type, None] = {}
    for package in (shoal_raylet.leases, shoal_raylet.objects):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            for _, each in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
                validate = getattr(each, "validate", None)
                if validate is not None and list(inspect.signature(validate).parameters) == ["self"]:
                    found[each] = None
    return list(found)


DECIDING = _deciding_classes()


@pytest.fixture(autouse=True)
def deciding_objects_are_sound() -> Iterator[None]:
    made: list[Any] = []

    def remembering(init: Any) -> Any:
        def remember(self: Any, *args: Any, **kwargs: Any) -> None:
            init(self, *args, **kwargs)
            made.append(self)

        return remember

    with ExitStack() as stack:
        for each in DECIDING:
            stack.enter_context(patch.object(each, "__init__", remembering(each.__init__)))
        yield
    for each in made:
        each.validate()
