"""Programs that make runtime environments: ``pip``, ``uv``, ``conda``, ``docker``."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from shoal_raylet.workers.environments.cache import Attempt, SetupFailed

#: So many of the last lines of what a tool printed are told.
_TAIL_LINES = 20
#: How often it is looked whether time is up, in seconds.
_LOOK_EVERY_S = 0.2


class ToolFailed(SetupFailed):
    """A tool ended with an error; the text ends with its last lines."""


def run_tool(
    what: str, command: Sequence[str], environ: Mapping[str, str], attempt: Attempt, directory: Path | None = None
) -> str:
    """Waits; all that it printed. ``what``: for the error.

    Raises: ToolFailed, SetupFailed when time is up: it is killed with all that it has started.
    """
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env=dict(environ),
            start_new_session=True,
        )
        try:
            while True:
                try:
                    code = process.wait(min(_LOOK_EVERY_S, attempt.left()))
                    break
                except subprocess.TimeoutExpired:
                    continue
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        output.seek(0)
        text = output.read().decode("utf-8", "replace")
    if code:
        tail = "\n".join(text.splitlines()[-_TAIL_LINES:])
        raise ToolFailed(f"{what} ended with exit code {code}:\n{tail}")
    return text
