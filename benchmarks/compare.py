"""Compare Shoal with Ray, with ``multiprocessing.Pool`` and with what the machine can do.

    python benchmarks/compare.py [--rows TEXT] [--rounds 3] [--seconds 1.5]

Every participant of a row is a process of its own that waits while the others measure. The rounds take turns, Shoal,
Ray, Shoal, Ray, so that a slow minute of the machine is bad for both; the median of the rounds counts.
Writes table.md, results.json and chart.png to benchmarks/results.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from ray_venv import python_with_ray
from report import describe_machine, write_report
from rows import ROWS, Row

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent / ".cache"
RESULTS = HERE / "results"

START_UP_ROUNDS = 3
#: A participant that does not answer for so long has failed; in seconds.
ANSWER_DEADLINE = 90.0


class ParticipantError(Exception):
    """A participant ended or was too slow; its log says why."""


class Participant:
    """A running ``participant.py``."""

    def __init__(self, python: Path, library: str, row: str, scratch: Path) -> None:
        self.name = f"{library} {row}"
        self._log = scratch / f"{library}-{row}.log"
        environment = {
            **os.environ,
            # Ray keeps its sessions and its token here, and does not report home.
            "RAY_TMPDIR": str(scratch),
            "RAY_AUTH_TOKEN_PATH": str(scratch / "ray-token"),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [python, HERE / "participant.py", library, row],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment,
                start_new_session=True,
            )  # fmt: skip

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        timer = threading.Timer(ANSWER_DEADLINE, self._process.kill)
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            raise ParticipantError(f"{self.name}: {self._log.read_text(errors='replace')[-2000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def measure(self, seconds: float) -> float:
        """The rate of one round, in the row's unit."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{seconds}\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise ParticipantError(f"{self.name}: {self._log.read_text(errors='replace')[-2000:]}") from error
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


class Comparison:
    """Runs the rows and collects what they measured."""

    def __init__(self, rounds: int, seconds: float, scratch: Path) -> None:
        self._rounds = rounds
        self._seconds = seconds
        self._scratch = scratch
        (scratch / "ray-token").write_text(secrets.token_hex(32))
        self._pythons = {"shoal": Path(sys.executable), "ray": python_with_ray(CACHE)}
        #: Row key → participant → the rate of each round.
        self.rates: dict[str, dict[str, list[float]]] = {}
        #: Library → the times of each fresh process, in seconds.
        self.start_up: dict[str, list[dict[str, float]]] = {}
        self.failures: list[str] = []

    def run_row(self, row: Row) -> None:
        rates: dict[str, list[float]] = {}
        participants: dict[str, Participant] = {}
        try:
            for name in ("shoal", "ray", *row.yardsticks):
                participant = Participant(self._python(name), name, row.key, self._scratch)
                participants[name] = participant
                try:
                    participant.answer()
                    rates[name] = []
                except ParticipantError as error:
                    self._failed(error)
            for _ in range(self._rounds):
                for name in list(rates):
                    try:
                        rates[name].append(participants[name].measure(self._seconds))
                    except ParticipantError as error:
                        del rates[name]
                        self._failed(error)
        finally:
            for participant in participants.values():
                participant.stop()
        self.rates[row.key] = rates
        print(f"{row.title}: " + ", ".join(f"{n} {sorted(r)[len(r) // 2]:,.1f}" for n, r in rates.items()), flush=True)

    def run_start_up(self) -> None:
        for _ in range(START_UP_ROUNDS):
            for name in ("shoal", "ray"):
                participant = Participant(self._python(name), name, "start-up", self._scratch)
                try:
                    self.start_up.setdefault(name, []).append(participant.answer())
                except ParticipantError as error:
                    self._failed(error)
                finally:
                    participant.stop()
        print(f"start-up: {self.start_up}", flush=True)

    def _python(self, participant: str) -> Path:
        return self._pythons.get(participant, Path(sys.executable))

    def _failed(self, error: ParticipantError) -> None:
        self.failures.append(str(error))
        print(f"FAILED {error}", file=sys.stderr, flush=True)


def main() -> int:
    arguments = argparse.ArgumentParser(description="Compare Shoal with Ray and with the machine's limits")
    arguments.add_argument("--rows", default="", help="only rows whose title contains this")
    arguments.add_argument("--rounds", type=int, default=3, help="measurements of each participant in each row")
    arguments.add_argument("--seconds", type=float, default=1.5, help="length of one measurement")
    arguments.add_argument("--results", type=Path, default=RESULTS, help="directory of the report")
    options = arguments.parse_args()

    with tempfile.TemporaryDirectory(prefix="bench", dir="/tmp") as scratch:
        comparison = Comparison(options.rounds, options.seconds, Path(scratch))
        for row in ROWS:
            if options.rows in row.title:
                comparison.run_row(row)
        if options.rows in "start-up":
            comparison.run_start_up()

    options.results.mkdir(exist_ok=True, parents=True)
    print(write_report(options.results, describe_machine(), comparison.rates, comparison.start_up))
    return 1 if comparison.failures else 0


if __name__ == "__main__":
    sys.exit(main())
