from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadFileScheduling

# How long an example takes says something of the machine, not of the code.
settings.register_profile("no clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no clock")

# A shell starts what it puts into the background with SIGINT ignored, and so would be all programs that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


class _Files(LoadFileScheduling):
    """Side by side, the tests of a file stay together, for the clusters they share; so do all that need containers."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "containers" if file.startswith("tests/e2e/compose/") else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Files:
    return _Files(config, log)


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
