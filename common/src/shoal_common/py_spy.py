"""py-spy: where it is, how it is called, and what is to be done when it fails."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from shoal_common.errors import PreconditionFailed

#: Samples of a profile, a second.
RATE = 100
#: What it says of a process that did nothing.
_IDLE = "No stack counts found"
_NO_PYTHON = "Failed to find python version"
_FORBIDDEN = ("Permission Denied", "permission denied", "Operation not permitted", "EPERM")


def program() -> str:
    """Raises: PreconditionFailed when it is not installed here."""
    beside = Path(sys.executable).parent / "py-spy"
    found = str(beside) if beside.exists() else shutil.which("py-spy")
    if found is None:
        raise PreconditionFailed(
            "py-spy is not installed there: pip install py-spy in the environment of the raylet; in the images of "
            "compose.yaml, SHOAL_LIBRARIES with py-spy in it, and make up"
        )
    return found


def dump(pid: int, *, native: bool) -> list[str]:
    """The command that prints the stacks of a process. Raises: as `program`."""
    return [program(), "dump", "--pid", str(pid), *(["--native"] if native else [])]


def record(pid: int, seconds: int, output: Path, *, native: bool, idle: bool) -> list[str]:
    """The command that writes how often each stack was seen, a line each: ``outermost;...;innermost count``. ``idle``:
    threads that wait count, too. Raises: as `program`."""
    command = [program(), "record", "--pid", str(pid), "--duration", str(seconds), "--rate", str(RATE)]
    flags = [*(["--native"] if native else []), *(["--idle"] if idle else [])]
    return [*command, *flags, "--format", "raw", "--output", str(output)]


def was_idle(errors: str) -> bool:
    """``errors``: what a ``record`` that failed has printed."""
    return _IDLE in errors


def failure(pid: int, errors: str) -> str:
    """For humans."""
    # Below what it says is a backtrace of its own, for its authors.
    lines = [line.strip() for line in errors.partition("Stack backtrace:")[0].splitlines() if line.strip()]
    if _NO_PYTHON in errors:
        return f"process {pid} runs no Python, or one that this py-spy does not know: it cannot be looked into"
    why = re.sub(r"^([0-9]+|Error): ", "", lines[-1]) if lines else "it does not say why"
    text = f"py-spy cannot look into process {pid}: {why}"
    if any(each in errors for each in _FORBIDDEN):
        text += (
            ". It needs leave to trace other processes: in a container --cap-add SYS_PTRACE (cap_add in Compose), "
            "otherwise the same user and kernel.yama.ptrace_scope=0, or root"
        )
    return text
