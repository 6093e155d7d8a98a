from __future__ import annotations

from collections.abc import Iterator

import docker
import pytest
from support.stack import Stack, build_images, engine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The first test also waits for images and containers.
    for item in items:
        if "compose" in item.path.parts:
            item.add_marker(pytest.mark.timeout(1500))


@pytest.fixture(scope="session")
def client() -> Iterator[docker.DockerClient]:
    """The Docker engine, with all images of this checkout."""
    client = engine()
    build_images()
    yield client
    client.close()


@pytest.fixture(scope="session")
def stack(client: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole deployment with three raylets, for all tests of this folder."""
    with Stack(client, tmp_path_factory.mktemp("stack")).deployed() as stack:
        yield stack


@pytest.fixture
def shaken(stack: Stack) -> Iterator[Stack]:
    """The deployment, for a test that stops, cuts or scales something: afterwards it is as before."""
    yield stack
    stack.restore()
