"""One process that measures one program on one library, whenever it is told to.

    python participant.py LIBRARY ROW      LIBRARY is shoal or ray, or the name of one of the row's yardsticks
    python participant.py LIBRARY start-up

Standard input brings one line per measurement, the seconds it may take; standard output answers each with a line of
JSON, after a first line that says that the set-up and the warm-up are done. At end of input it shuts down. The
interpreter's own start is not counted; ``compare.py`` runs this file with each library's own interpreter.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from typing import Any, TextIO

WARM_UP_SECONDS = 0.7
WARM_UP_STEPS = 3

#: The same for both libraries. The rest are their defaults, the size of the object store too.
INIT = {"num_cpus": 2, "include_dashboard": False, "log_to_driver": False}


def main() -> None:
    answers = _claim_stdout()
    library_name, row_key = sys.argv[1:]
    if row_key == "start-up":
        _answer(answers, measure_start_up(library_name))
        return

    from rows import ROWS

    row = next(row for row in ROWS if row.key == row_key)
    if library_name in row.yardsticks:
        step = row.yardsticks[library_name]()
    else:
        library: Any = importlib.import_module(library_name)
        library.init(**INIT)
        step = row.program(library)

    started, steps = time.perf_counter(), 0
    while steps < WARM_UP_STEPS or time.perf_counter() - started < WARM_UP_SECONDS:
        step()
        steps += 1
    _answer(answers, {"ready": True})

    for line in sys.stdin:
        seconds = float(line)
        amount, started = 0.0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < seconds:
            amount += step()
        _answer(answers, {"rate": amount / elapsed})

    if library_name not in row.yardsticks:
        library.shutdown()


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
