"""How fast calls and objects are here: some rows in a few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import click

import shoal
from shoal._cli.parameters import address_option
from shoal.exceptions import GetTimeoutError

#: Each row is measured for so long, in seconds.
_ROW_S = 1.0
_BATCH = 1000
_LARGE_BYTES = 64 * 1024 * 1024
#: Nothing here takes longer unless no worker can be had.
_PATIENCE_S = 60.0


@click.command(help="Measure calls and objects a second on a cluster: of its own, unless --address names one.")
@address_option
def microbenchmark(address: str | None) -> None:
    with shoal.init(address or "local", log_to_driver=False, logging_level="ERROR"):
        try:
            for name, unit, rate in _rows():
                print(f"{name:<36}{rate:>12,.1f} {unit}", flush=True)
        except GetTimeoutError as error:
            raise RuntimeError(f"the cluster has no free worker: {error}") from error


def _rows() -> Iterator[tuple[str, str, float]]:
    """(what, unit, how many a second)."""

    @shoal.remote
    def nothing() -> None: ...

    class Actor:
        def nothing(self) -> None: ...

    def get(what: Any) -> Any:
        return shoal.get(what, timeout=_PATIENCE_S)

    actor_class: Any = shoal.remote(num_cpus=0)(Actor)
    actor = actor_class.remote()
    get([nothing.remote(), actor.nothing.remote()])  # a worker and the actor are there
    yield "tasks, one at a time", "/s", _rate(lambda: get(nothing.remote()))
    yield "tasks, 1,000 at once", "/s", _BATCH * _rate(lambda: get([nothing.remote() for _ in range(_BATCH)]))
    yield "actor calls, one at a time", "/s", _rate(lambda: get(actor.nothing.remote()))
    yield (
        "actor calls, 1,000 at once",
        "/s",
        _BATCH * _rate(lambda: get([actor.nothing.remote() for _ in range(_BATCH)])),
    )
    yield "put of a small object", "/s", _rate(lambda: shoal.put(0))
    small = shoal.put(0)
    yield "get of a small object", "/s", _rate(lambda: get(small))
    large = bytes(_LARGE_BYTES)
    yield "put of 64 MiB", "GiB/s", _LARGE_BYTES / 2**30 * _rate(lambda: shoal.put(large))


def _rate(call: Callable[[], object]) -> float:
    """Calls a second."""
    calls, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < _ROW_S:
        call()
        calls += 1
    return calls / passed
