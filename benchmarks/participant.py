"""One process that measures the programs of one library, whenever it is told to.

    python participant.py LIBRARY              LIBRARY is shoal or ray, or the name of a yardstick
    python participant.py LIBRARY start-up

Standard input brings orders as lines of JSON: ``{"row": KEY}`` sets a row's program up and warms it up, ``{"seconds":
S}`` measures it for about so long; standard output answers each with a line. The cluster outlives a row, unless the
next one asks for another. At end of input it shuts down. The interpreter's own start is not counted; `participants`
runs this file with each library's own interpreter.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rows import Row

#: The same for both libraries, in clusters of their own. The rest are their defaults, the size of the object store too.
INIT = {"address": "local", "num_cpus": 2, "include_dashboard": False, "log_to_driver": False}


def main() -> None:
    answers = _claim_stdout()
    name = sys.argv[1]
    if sys.argv[2:] == ["start-up"]:
        _answer(answers, measure_start_up(name))
        return

    from rows import ROWS
    from sweep_rows import SWEEP

    rows = {row.key: row for row in (*ROWS, *SWEEP)}
    runner = Runner(name)
    for line in sys.stdin:
        order = json.loads(line)
        if "row" in order:
            runner.prepare(rows[order["row"]])
            _answer(answers, {"ready": True})
        else:
            _answer(answers, {"rate": runner.measure(order["seconds"])})
    runner.stop()


class Runner:
    """Runs the steps of one row after the other."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._library: Any = None
        #: What the row's cluster was started with, beyond `INIT`.
        self._init: dict[str, Any] = {}
        self._step: Callable[[], float] | None = None

    def prepare(self, row: Row) -> None:
        self._step = None  # the last row's objects and actors end before the next one's come
        yardstick = row.yardsticks.get(self._name)
        step = row.program(self._cluster(row.init)) if yardstick is None else yardstick()
        started, steps = time.perf_counter(), 0
        while steps < row.warm_up_steps or time.perf_counter() - started < row.warm_up_s:
            step()
            steps += 1
        self._step = step

    def measure(self, seconds: float) -> float:
        """What it does a second; at least one step."""
        assert self._step is not None
        amount, started, elapsed = 0.0, time.perf_counter(), -1.0
        while elapsed < seconds:
            amount += self._step()
            elapsed = time.perf_counter() - started
        return amount / elapsed

    def stop(self) -> None:
        self._step = None
        if self._library is not None:
            self._library.shutdown()

    def _cluster(self, init: dict[str, Any]) -> Any:
        if self._library is not None and self._init == init:
            return self._library
        if self._library is not None:
            self._library.shutdown()
        self._library = importlib.import_module(self._name)
        self._library.init(**INIT, **init)
        self._init = init
        return self._library


def measure_start_up(library_name: str) -> dict[str, float]:
    """Seconds of the import, of ``init()``, and of the first task after it."""
    times = [time.perf_counter()]
    ray: Any = importlib.import_module(library_name)
    times.append(time.perf_counter())
    ray.init(**INIT)
    times.append(time.perf_counter())

    @ray.remote
    def nothing() -> None:
        pass

    ray.get(nothing.remote())
    times.append(time.perf_counter())
    ray.shutdown()
    return {
        key: end - start for key, start, end in zip(("import", "init", "first_task"), times, times[1:], strict=False)
    }


def _claim_stdout() -> TextIO:
    """Keep standard output for the answers; whatever else prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def _answer(answers: TextIO, message: dict[str, Any]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
