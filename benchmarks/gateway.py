"""What a driver loses by being outside of its cluster, behind a gateway.

    python benchmarks/gateway.py [--rounds N]

One cluster, as ``shoal start`` makes it; the same program as a driver on the node and as a client through the node's
gateway over the loopback, in turn. Writes results/gateway.{md,json}.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from report import describe_machine

RESULTS = Path(__file__).resolve().parent / "results"
MIB = 1 << 20
SECONDS = 2.0
LARGE = 100 * MIB
#: Name of a row → its unit.
ROWS = {
    "tasks one at a time": "/s",
    "1,000 tasks at once": "/s",
    "actor calls one at a time": "/s",
    "1,000 actor calls at once": "/s",
    "put of 100 MiB": "GB/s",
    "get of 100 MiB": "GB/s",
}


def rate(step: Callable[[], object], each: float) -> float:
    """``each`` per second of ``step``, run for some seconds after a warm-up."""
    step()
    count, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < SECONDS:
        step()
        count += 1
    return each * count / elapsed


def measure() -> dict[str, float]:
    """In a driver of its own, by ``SHOAL_ADDRESS``."""
    import numpy as np

    import shoal

    shoal.init(logging_level="ERROR", log_to_driver=False)
    nothing = shoal.remote(lambda: None)

    class Actor:
        @shoal.method
        def nothing(self) -> None:
            pass

        @shoal.method
        def make(self) -> list[shoal.ObjectRef[object]]:
            return [shoal.put(np.zeros(LARGE, dtype=np.uint8))]

    actor = shoal.remote(Actor).remote()
    shoal.get([nothing.remote() for _ in range(100)])
    data = np.zeros(LARGE, dtype=np.uint8)

    def get() -> None:
        # Each time an object that this process has not read yet.
        shoal.get(shoal.get(actor.make.remote())[0])

    made = 1 / rate(lambda: shoal.get(actor.make.remote()), 1)
    whole = 1 / rate(get, 1)
    result = {
        "tasks one at a time": rate(lambda: shoal.get(nothing.remote()), 1),
        "1,000 tasks at once": rate(lambda: shoal.get([nothing.remote() for _ in range(1000)]), 1000),
        "actor calls one at a time": rate(lambda: shoal.get(actor.nothing.remote()), 1),
        "1,000 actor calls at once": rate(lambda: shoal.get([actor.nothing.remote() for _ in range(1000)]), 1000),
        "put of 100 MiB": rate(lambda: shoal.put(data), LARGE / 1e9),
        # Inside nothing is copied: what remains is the difference of two times, if any.
        "get of 100 MiB": LARGE / 1e9 / max(whole - made, 1e-9),
    }
    shoal.shutdown()
    return result


def participant(environment: dict[str, str]) -> dict[str, float]:
    done = subprocess.run([sys.executable, __file__, "--measure"], env=environment, stdout=subprocess.PIPE, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


@contextlib.contextmanager
def cluster(gateway_port: int) -> Iterator[dict[str, str]]:
    """The environment of a driver on its node."""
    with tempfile.TemporaryDirectory(prefix="b-", dir="/tmp") as directory:
        environment = {**os.environ, "HOME": directory, "TMPDIR": directory}
        shoal = [sys.executable, "-m", "shoal.cli"]
        sizes = ["--num-cpus=2", f"--object-store-memory={1024 * MIB}"]
        start = [*shoal, "start", "--head", f"--port={free_port()}", f"--gateway-port={gateway_port}", *sizes]
        subprocess.run(start, env=environment, stdout=subprocess.DEVNULL, check=True)
        try:
            yield environment
        finally:
            subprocess.run([*shoal, "stop"], env=environment, stdout=subprocess.DEVNULL, check=True)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.measure:
        print(json.dumps(measure()))
        return

    port = free_port()
    runs: dict[str, list[dict[str, float]]] = {"inside": [], "outside": []}
    with cluster(port) as environment:
        outside = {**environment, "SHOAL_ADDRESS": f"shoal://127.0.0.1:{port}"}
        for _ in range(options.rounds):
            runs["inside"].append(participant(environment))
            runs["outside"].append(participant(outside))
    figures = {place: {row: median(run[row] for run in each) for row in ROWS} for place, each in runs.items()}
    lines = ["| | on the node | through the gateway | of it |", "|---|---|---|---|"]
    for row, unit in ROWS.items():
        direct, tunnelled = figures["inside"][row], figures["outside"][row]
        if row.startswith("get"):
            lines.append(f"| {row} | in place | {tunnelled:,.2f} {unit} | |")
        else:
            digits = 2 if unit == "GB/s" else 0
            lines.append(
                f"| {row} | {direct:,.{digits}f} {unit} | {tunnelled:,.{digits}f} {unit} | {tunnelled / direct:.0%} |"
            )
    machine = describe_machine()
    title = f"Median of {options.rounds} rounds in turn, on {machine['cpus']} CPUs ({machine['cpu_model']})."
    text = title + "\n\n" + "\n".join(lines) + "\n"
    (RESULTS / "gateway.md").write_text(text)
    (RESULTS / "gateway.json").write_text(json.dumps({"machine": machine, "runs": runs}, indent=1) + "\n")
    print(text)


if __name__ == "__main__":
    main()
