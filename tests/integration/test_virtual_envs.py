"""What pip installs for a runtime environment, and where another node has it from."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from support.wheels import make_wheel

from shoal_common.errors import NotFound
from shoal_raylet.workers.environments.cache import Attempt, EnvironmentCache, SetupFailed
from shoal_raylet.workers.environments.downloads import Downloads
from shoal_raylet.workers.environments.virtual_envs import VirtualEnvs

ATTEMPT = Attempt(-1.0, threading.Event())


class Stored:
    """The cluster's blobs."""

    def __init__(self) -> None:
        self.blobs: dict[tuple[str, int], bytes] = {}

    async def size(self, place: str) -> int:
        return int(await self.part(place, -1))

    async def part(self, place: str, number: int) -> bytes:
        if (place, number) not in self.blobs:
            raise NotFound(place)
        return self.blobs[place, number]

    async def put(self, place: str, number: int, data: bytes) -> None:
        self.blobs[place, number] = data

    async def used(self, places: Iterable[str]) -> None: ...


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """One that runs in a thread, as the raylet's does beside those that make environments."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def run(place: Path, *command: str) -> str:
    return subprocess.run([place / "bin" / command[0], *command[1:]], check=True, capture_output=True, text=True).stdout


def test_another_node_has_it_without_an_index(tmp_path: Path, loop: asyncio.AbstractEventLoop) -> None:
    wheel = make_wheel(tmp_path, "shoal_tiny", "def main():\n    print('it runs')\n")
    wanted = {"packages": [str(wheel)], "pip_check": True, "pip_install_options": ["--no-index"]}
    stored = Stored()
    places = []
    for node in ("one", "other"):
        cache = EnvironmentCache(tmp_path / node)
        entry = VirtualEnvs(cache, Downloads(cache, stored, loop)).entry("pip", wanted, os.environ, {}, ATTEMPT)
        places.append(entry.path)
        wheel.unlink(missing_ok=True)
    assert places[0].name == places[1].name and places[0] != places[1]
    for place in places:
        program = "import shoal_tiny, shoal; print(shoal_tiny.__file__)"
        assert Path(run(place, "python", "-c", program).strip()).is_relative_to(place), "Shoal came along"
        assert run(place, "shoal_tiny-command") == "it runs\n"


def test_the_tools_last_lines_are_told(tmp_path: Path, loop: asyncio.AbstractEventLoop) -> None:
    cache = EnvironmentCache(tmp_path / "cache")
    wanted = {"packages": ["shoal-nowhere"], "pip_check": False, "pip_install_options": ["--no-index"]}
    with pytest.raises(SetupFailed, match=r"pip install ended with exit code 1:\n(.*\n)*ERROR: No matching"):
        VirtualEnvs(cache, Downloads(cache, Stored(), loop)).entry("pip", wanted, os.environ, {}, ATTEMPT)
    assert list((tmp_path / "cache").iterdir()) == []
