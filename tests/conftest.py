from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says something of the machine, not of the code.
settings.register_profile("no clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no clock")

# A shell starts what it puts into the background with SIGINT ignored, and so would be all programs that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Side by side, the tests of a file stay together, for the clusters they share; so do all that need containers."""
    for item in items:
        folder = item.path.parent
        item.add_marker(pytest.mark.xdist_group("compose" if folder.name == "compose" else str(item.path)))


@pytest.fixture(scope="session", autouse=True)
def temporary_directory() -> Iterator[None]:
    """Sessions of these tests lie apart, so that ``address="auto"`` finds no cluster of somebody else's.

    Directly below /tmp and with a short name: the paths of Unix sockets in it have to stay below 108 bytes.
    """
    directory = tempfile.mkdtemp(prefix="st-", dir="/tmp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", directory)
        patch.setattr(tempfile, "tempdir", None)
        yield
    shutil.rmtree(directory, ignore_errors=True)
