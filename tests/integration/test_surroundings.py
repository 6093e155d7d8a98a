"""A program starts its cluster wherever it runs: what surrounds the process does not matter to ours."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.processes import PATIENCE_S

PROGRAM = """
import os, signal, subprocess, sys
{first}
import shoal as ray
ray.init(num_cpus=1)

@ray.remote
def f():
    {task}

assert ray.get(f.remote()) == {expected}
"""
#: Modules that ours import early, late, or in one process only.
SHADOWED = ("random", "token", "json", "queue", "platform", "numpy", "msgspec", "asyncio", "shoal_gcs")


def run(
    code: str, *, prefix: Sequence[str] = (), arguments: Sequence[bytes] = (), **process: Any
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*prefix, sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, timeout=PATIENCE_S, **process
    )


def program(first: str = "", task: str = "return 1", expected: str = "1") -> str:
    return PROGRAM.format(first=textwrap.dedent(first), task=task, expected=expected)


def test_files_of_the_current_directory_are_not_imported(tmp_path: Path) -> None:
    for name in SHADOWED:
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a file of the current directory was imported')\n")
    script = tmp_path / "elsewhere" / "script.py"
    script.parent.mkdir()
    script.write_text(program(task="import random; return random.__name__", expected="'random'"))
    done = subprocess.run([sys.executable, script], cwd=tmp_path, stderr=subprocess.PIPE, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr.decode()


def test_modules_that_the_driver_finds_are_found_in_tasks(tmp_path: Path) -> None:
    # Its bytes are no UTF-8, and `-c` puts the current directory on the driver's path.
    directory = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    directory.mkdir()
    (directory / "beside.py").write_text("ANSWER = 42\n")
    done = run(program(task="import beside; return beside.ANSWER", expected="42"), cwd=directory)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_standard_streams_may_be_closed(closed: str) -> None:
    done = run(program(task="print('said'); return 1"), prefix=["bash", "-c", f'exec "$@" {closed}', "-"])
    assert done.returncode == 0, done.stderr.decode()


def test_neither_text_nor_directory_nor_signals_need_be_in_order(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    first = f"""
    os.mkdir({str(gone)!r})
    os.chdir({str(gone)!r})
    os.rmdir({str(gone)!r})
    os.umask(0o277)
    os.environ.pop("HOME", None)
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGCHLD])
    """
    environment: dict[bytes, bytes] = {
        **os.environb,
        b"NOT_\xfe_TEXT": b"\xff",
        b"PYTHONPATH": b":/nonexistent::\xff:",
        b"PYTHONSTARTUP": b"/nonexistent",
        b"LD_PRELOAD": b"/nonexistent.so",
        b"PYTHONINSPECT": b"",
        b"http_proxy": b"http://127.0.0.1:1",
    }
    task = "return os.environb[b'NOT_\\xfe_TEXT'], subprocess.run(['false']).returncode"
    code = program(first, task, "(b'\\xff', 1)")
    done = run(code, arguments=[b"photo-\xff.jpg"], env=environment)
    assert done.returncode == 0, done.stderr.decode(errors="replace")


def test_a_directory_for_temporary_files_with_a_name_too_long_for_sockets(tmp_path: Path) -> None:
    directory = tmp_path / ("long" * 40)
    done = run(program(), env={**os.environ, "TMPDIR": str(directory)})
    assert done.returncode == 0, done.stderr.decode()


def test_without_loopback_the_error_says_so() -> None:
    if subprocess.run(["unshare", "-n", "true"], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("a network namespace takes root")
    done = run(program(), prefix=["unshare", "-n"])
    assert b"127.0.0.1 cannot be reached: [Errno 101] Network is unreachable" in done.stderr
