"""The module that the tests of this folder run on: Shoal, or Ray itself as the oracle.

The tests are written as a user of Ray writes them. To see what Ray 2.60 does with them:

    python3 -m venv /tmp/rayvenv
    /tmp/rayvenv/bin/pip install ray==2.60.0 numpy pyarrow pytest pytest-asyncio pytest-timeout
    SHOAL_COMPAT_MODULE=ray /tmp/rayvenv/bin/python -m pytest -W default tests/e2e/compat
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

MODULE = os.environ.get("SHOAL_COMPAT_MODULE", "shoal")
IS_RAY = MODULE == "ray"

ray: Any = importlib.import_module(MODULE)
exceptions: Any = importlib.import_module(f"{MODULE}.exceptions")

#: What every cluster of this suite is started with; no dashboard, so that starting Ray takes a second and not five.
QUIET: dict[str, Any] = {"include_dashboard": False, "logging_level": "ERROR"}

#: For what is meant to be better than Ray.
better_than_ray = pytest.mark.skipif(IS_RAY, reason="Shoal differs from Ray on purpose")


def submodule(name: str) -> ModuleType:
    """E.g. ``util.queue`` of the module under test."""
    return importlib.import_module(f"{MODULE}.{name}")


def new_signal() -> Any:
    """An actor on which tasks wait until the test lets them go: ``wait``, ``send``, ``waiters``."""

    class Signal:
        def __init__(self) -> None:
            import asyncio

            self.event = asyncio.Event()
            self.waiting = 0

        async def send(self) -> None:
            self.event.set()

        async def wait(self) -> None:
            self.waiting += 1
            await self.event.wait()
            self.waiting -= 1

        async def waiters(self) -> int:
            return self.waiting

    return ray.remote(Signal).options(num_cpus=0).remote()


def eventually(condition: Callable[[], Any], what: str, within: float = 120) -> None:
    """Waits for what the API has no call to wait for, e.g. the end of a process. ``within`` is in seconds."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # it may go between open and read
        return False


def script(code: str) -> str:
    """A user's program: ``code`` after ``import … as ray``."""
    quiet = ", ".join(f"{name}={value!r}" for name, value in QUIET.items())
    return f"import {MODULE} as ray\nQUIET = dict({quiet})\n{textwrap.dedent(code)}"


def run(
    *arguments: str, input: str | None = None, status: int = 0, env: dict[str, str] | None = None, cwd: Any = None
) -> str:
    """Runs Python with ``arguments`` and returns what it printed, both streams; it must exit with ``status``."""
    done = subprocess.run(
        [sys.executable, *arguments],
        input=input,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        env={**os.environ, **(env or {})},
        cwd=cwd,
    )
    assert done.returncode == status, done.stdout
    return done.stdout
