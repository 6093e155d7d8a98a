from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.stack import Stack, engine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The first test also waits for images and containers.
    for item in items:
        if "compose" in item.path.parts:
            item.add_marker(pytest.mark.timeout(1500))


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The whole deployment with three raylets, for all tests of this folder. Afterwards nothing of it is left."""
    client = engine()
    stack = Stack(client)
    try:
        stack.down()  # of a run that was killed
        stack.build()
        stack.up()
        yield stack
    finally:
        stack.down()
        left = stack.leftovers()
        client.close()
    assert not left


@pytest.fixture
def shaken(stack: Stack) -> Iterator[Stack]:
    """The deployment, for a test that stops, cuts or scales something: afterwards it is as before."""
    yield stack
    stack.restore()
