"""Every example runs as a user runs it, prints its result, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.examples import AUTOML, EXAMPLES, OUTPUTS, check_automl, check_output
from support.processes import PATIENCE_S, eventually

ROOT = EXAMPLES.parent


def processes_with(marker: str) -> dict[int, str]:
    """The processes that inherited ``marker`` in their environment, with their command lines."""
    found = {}
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            if marker.encode() in (proc / "environ").read_bytes():
                found[int(proc.name)] = (proc / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it ended while we looked, or is another user's
    return found


class Run:
    """Runs programs in an environment in which whatever they leave behind can be recognized."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.marker = f"SHOAL_TEST_RUN={uuid.uuid4().hex}"

    def __call__(self, *command: str | Path) -> str:
        name, value = self.marker.split("=")
        environment = {**os.environ, "TMPDIR": str(self.directory), name: value, "PYTHONWARNINGS": "error"}
        done = subprocess.run(
            [sys.executable, *command],
            env=environment,
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def assert_nothing_left(self) -> None:
        eventually(lambda: not processes_with(self.marker), "no process is left")
        # Sessions are directories in one that belongs to the user, which may stay.
        assert set(self.directory.rglob("*")) <= {self.directory / f"shoal-{os.getuid()}"}
        assert [path for path in Path("/dev/shm").iterdir() if "shoal" in path.name] == []


@pytest.fixture
def run() -> Iterator[Run]:
    # Not tmp_path: the path of a Unix socket has 107 characters, and pytest's are long.
    with tempfile.TemporaryDirectory(prefix="ex", dir="/tmp") as directory:
        run = Run(Path(directory))
        yield run
        # A test that failed must not leave to the next one what it failed for.
        for pid in processes_with(run.marker):
            os.kill(pid, signal.SIGKILL)


def test_every_example_is_listed() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(OUTPUTS)


@pytest.mark.parametrize("example", OUTPUTS)
def test_example(example: str, run: Run) -> None:
    check_output(example, run(EXAMPLES / example))
    run.assert_nothing_left()


def test_automl_service(run: Run) -> None:
    check_automl(run(*AUTOML, "--num-cpus", "2"), run.directory)
    run.assert_nothing_left()


def test_the_tour_of_the_readme(run: Run) -> None:
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert code is not None
    output = run("-c", code[1])
    assert output.splitlines() == ["[1000000, 1000000, 1000000]", "[0, 1, 3, 6] 1"]
    run.assert_nothing_left()
