"""Compare Shoal with Ray, with ``multiprocessing.Pool`` and with what the machine can do.

    python benchmarks/compare.py [--rows TEXT] [--rounds 3] [--seconds 1.5]

Every participant of a row is a process of its own that waits while the others measure. The rounds take turns, Shoal,
Ray, Shoal, Ray, so that a slow minute of the machine is bad for both; the median of the rounds counts.
Writes table.md, results.json and chart.png to benchmarks/results.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from comparison import Comparison
from participants import ParticipantError
from report import draw_chart, row_lines, start_up_lines, write_report
from rows import ROWS

RESULTS = Path(__file__).resolve().parent / "results"

START_UP_ROUNDS = 3


def run_start_up(comparison: Comparison) -> dict[str, list[dict[str, float]]]:
    """Library → the times of each fresh process, in seconds."""
    times: dict[str, list[dict[str, float]]] = {}
    for _ in range(START_UP_ROUNDS):
        for name in ("shoal", "ray"):
            participant = comparison.participants.start(name, "start-up")
            try:
                times.setdefault(name, []).append(participant.answer())
            except ParticipantError as error:
                comparison.failed(error)
            finally:
                participant.stop()
    print(f"start-up: {times}", flush=True)
    return times


def main() -> int:
    arguments = argparse.ArgumentParser(description="Compare Shoal with Ray and with the machine's limits")
    arguments.add_argument("--rows", default="", help="only rows whose title contains this")
    arguments.add_argument("--rounds", type=int, default=3, help="measurements of each participant in each row")
    arguments.add_argument("--seconds", type=float, default=1.5, help="length of one measurement")
    arguments.add_argument("--results", type=Path, default=RESULTS, help="directory of the report")
    options = arguments.parse_args()

    start_up: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="bench", dir="/tmp") as scratch:
        comparison = Comparison(options.rounds, options.seconds, Path(scratch), fresh=True)
        for row in ROWS:
            if options.rows in row.title:
                comparison.run_row(row)
        if options.rows in "start-up":
            start_up = run_start_up(comparison)

    lines = row_lines(ROWS, comparison.rates) + start_up_lines(start_up)
    raw = {"rates": comparison.rates, "start_up": start_up}
    title = "Shoal and Ray, the same programs on the same machine"
    print(write_report(options.results, "table.md", "results.json", title, lines, raw))
    draw_chart(options.results / "chart.png", lines)
    return 1 if comparison.failures else 0


if __name__ == "__main__":
    sys.exit(main())
