"""Owners and workers, and a directory for their sockets."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from support.owners import Party


@pytest.fixture
def party() -> Iterator[Callable[..., Party]]:
    """Makes them by their names: ``party("driver")``, ``party("worker", works=True)``."""
    directory = tempfile.mkdtemp(prefix="own")
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory)

        def make(name: str, *, works: bool = False) -> Party:
            party = Party(name, directory, works=works)
            stack.callback(party.close)
            stack.callback(party.core.table.validate)
            return party

        yield make


@pytest.fixture
def driver(party: Callable[..., Party]) -> Party:
    return party("driver")


@pytest.fixture
def worker(party: Callable[..., Party]) -> Party:
    return party("worker", works=True)
