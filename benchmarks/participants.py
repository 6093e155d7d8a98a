"""Those who take part in a comparison: processes that each run the programs of one library, and wait while the others
measure."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from ray_venv import python_with_ray

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent / ".cache"

#: A participant that does not answer for so long has failed; in seconds.
ANSWER_DEADLINE = 180.0


class ParticipantError(Exception):
    """A participant ended or was too slow; its log says why."""


class Participants:
    """Starts them. They keep what they write in the directory ``scratch``."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._pythons = {"shoal": Path(sys.executable), "ray": python_with_ray(CACHE)}
        self._logs = 0
        (scratch / "ray-token").write_text(secrets.token_hex(32))

    def start(self, name: str, *arguments: str) -> Participant:
        """``name``: shoal or ray, or the name of a yardstick."""
        self._logs += 1
        log = self._scratch / f"{name}-{self._logs}.log"
        return Participant(self._pythons.get(name, Path(sys.executable)), [name, *arguments], self._scratch, log)


class Participant:
    """A running ``participant.py``."""

    def __init__(self, python: Path, arguments: list[str], scratch: Path, log: Path) -> None:
        self.name = " ".join(arguments)
        self._log = log
        environment = {
            **os.environ,
            # Ray keeps its sessions and its token here, and does not report home.
            "RAY_TMPDIR": str(scratch),
            "RAY_AUTH_TOKEN_PATH": str(scratch / "ray-token"),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        with self._log.open("wb") as file:
            self._process = subprocess.Popen(
                [python, HERE / "participant.py", *arguments],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True, env=environment,
                start_new_session=True,
            )  # fmt: skip

    def answer(self) -> dict[str, Any]:
        """Raises: ParticipantError."""
        assert self._process.stdout is not None
        timer = threading.Timer(ANSWER_DEADLINE, self._process.kill)
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            raise self._failed()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def prepare(self, row: str) -> None:
        """Make it ready to measure a row. Raises: ParticipantError."""
        self._tell({"row": row})
        self.answer()

    def measure(self, seconds: float) -> float:
        """The rate of one round of the row it is prepared for, in the row's unit. Raises: ParticipantError."""
        self._tell({"seconds": seconds})
        return float(self.answer()["rate"])

    def stop(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        # It may have ended already; the answer that is missing then has been reported.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process.stdout.close()

    def _tell(self, order: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._failed() from error

    def _failed(self) -> ParticipantError:
        return ParticipantError(f"{self.name}: {self._log.read_text(errors='replace')[-2000:]}")
