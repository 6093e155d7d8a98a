"""The sweep: calls of many sizes and shapes on Shoal and Ray, and what Shoal takes at rest.

    python benchmarks/sweep.py [--rows TEXT ...] [--rounds 3] [--seconds 0.7]

All rows share one process and one cluster of each library, unless a row needs another cluster, so that rows are cheap;
the rounds take turns as in `compare`. Writes sweep.md and sweep.json to benchmarks/results.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import footprint
from comparison import Comparison
from report import Line, row_lines, write_report
from sweep_rows import SWEEP

RESULTS = Path(__file__).resolve().parent / "results"
AT_REST = "at rest"


def at_rest_lines(figures: dict[str, float]) -> list[Line]:
    lines = []
    for limit in footprint.LIMITS if figures else ():
        measured = figures[limit.key]
        beside = f"{figures['processes']:.0f} processes" if limit.key == "cluster_mib" else ""
        required = f"≤ {limit.at_most:g} {limit.unit}"
        lines.append(
            Line(limit.title, limit.unit, measured, None, None, required, None, measured <= limit.at_most, beside)
        )
    return lines


def main() -> int:
    arguments = argparse.ArgumentParser(description="Sizes and shapes of calls, on Shoal and on Ray")
    arguments.add_argument(
        "--rows", nargs="+", default=[""], metavar="TEXT", help=f'only rows whose title has one of these; "{AT_REST}"'
    )
    arguments.add_argument("--rounds", type=int, default=3, help="measurements of each participant in each row")
    arguments.add_argument("--seconds", type=float, default=0.7, help="length of one measurement, at least one step")
    arguments.add_argument("--results", type=Path, default=RESULTS, help="directory of the report")
    options = arguments.parse_args()

    def chosen(title: str) -> bool:
        return any(text in title for text in options.rows)

    with tempfile.TemporaryDirectory(prefix="bench", dir="/tmp") as scratch:
        comparison = Comparison(options.rounds, options.seconds, Path(scratch), fresh=False)
        try:
            for row in SWEEP:
                if chosen(row.title):
                    comparison.run_row(row)
        finally:
            comparison.stop()
    figures = footprint.measure() if chosen(AT_REST) else {}

    lines = row_lines(SWEEP, comparison.rates) + at_rest_lines(figures)
    raw = {"rates": comparison.rates, "at_rest": figures}
    title = "The sweep: sizes and shapes of calls, and what is taken at rest"
    print(write_report(options.results, "sweep.md", "sweep.json", title, lines, raw))
    return 1 if comparison.failures else 0


if __name__ == "__main__":
    sys.exit(main())
