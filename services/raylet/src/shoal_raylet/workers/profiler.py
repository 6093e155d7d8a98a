"""Runs py-spy on processes of this node, while somebody waits for what it says."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
from pathlib import Path

from shoal_common import py_spy
from shoal_common.errors import DeadlineExceeded, PreconditionFailed

#: Reading the stacks of a process that is swapped out may take so long, in seconds; writing a profile so much longer
#: than it lasted.
GRACE_S = 30.0
#: More than that of an answer is cut, in bytes.
MAX_BYTES = 16 * 1024 * 1024


async def stacks(pid: int, *, native: bool) -> bytes:
    """For humans. Raises: PreconditionFailed: py-spy is not there or may not, or the process has ended;
    DeadlineExceeded."""
    code, output, errors = await _run(py_spy.dump(pid, native=native), GRACE_S)
    if code:
        raise PreconditionFailed(py_spy.failure(pid, errors))
    return output[:MAX_BYTES]


async def cpu(pid: int, seconds: int, *, native: bool, idle: bool) -> bytes:
    """Stacks with counts, as `py_spy.record`; none = it did nothing meanwhile. Raises: as ``stacks``."""
    with tempfile.TemporaryDirectory(prefix="shoal-profile-") as directory:
        output = Path(directory, "stacks")
        command = py_spy.record(pid, seconds, output, native=native, idle=idle)
        code, _, errors = await _run(command, seconds + GRACE_S)
        if code and py_spy.was_idle(errors):
            return b""
        if code:
            raise PreconditionFailed(py_spy.failure(pid, errors))
        return await asyncio.to_thread(_beginning, output)


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MAX_BYTES)
    return data if len(data) < MAX_BYTES else data[: data.rfind(b"\n") + 1]


async def _run(command: list[str], within_s: float) -> tuple[int, bytes, str]:
    """Exit code, and what was printed. Whoever gives up has it killed."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(within_s):
            output, errors = await process.communicate()
    except TimeoutError:
        raise DeadlineExceeded(f"py-spy has not answered within {within_s:g} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    assert process.returncode is not None
    return process.returncode, output, errors.decode("utf-8", "replace")
