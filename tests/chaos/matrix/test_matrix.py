"""The crash matrix: each cell of the table on a deployment of processes, or in CI a tenth of them.

``make chaos`` runs all (SHOAL_CHAOS=all), an hour; ``pytest tests/chaos/matrix -k 'gcs_both and SIGKILL'`` a
part of the chosen ones. SHOAL_CHAOS_SEED repeats what was left to chance; a failure says with which seed it ran.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest
from chaos.matrix import strikes
from chaos.matrix.table import Cell, Ends, Impossible, Sees, allows, cells
from support.shaken import ShakenCluster

SEED = int(os.environ.get("SHOAL_CHAOS_SEED") or random.SystemRandom().randrange(1_000_000))
EVERY = os.environ.get("SHOAL_CHAOS") == "all"
#: A process is stopped, or a machine is cut off, for so long, in seconds. In CI just longer than what costs a node its
#: life, which is dead after three seconds here.
FAULT_S = 10.0 if EVERY else 5.0


class Deployment:
    """One for many cells; after one that fails there is a fresh one."""

    def __init__(self) -> None:
        self._cluster: ShakenCluster | None = None

    def cluster(self) -> ShakenCluster:
        if self._cluster is None:
            self._cluster = ShakenCluster()
        return self._cluster

    def close(self) -> None:
        if self._cluster is not None:
            self._cluster.close()
            self._cluster = None


@pytest.fixture(autouse=True)
def nothing_remains_of_a_test() -> None:
    """As elsewhere, with a deployment that may be begun anew in any test: its own looks after each cell, and those at
    this machine in the end."""


@pytest.fixture(scope="module")
def deployment() -> Iterator[Deployment]:
    deployment = Deployment()
    yield deployment
    deployment.close()


# The first one, and one after another that failed, also waits for a deployment.
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "cell",
    [cell for cell in cells() if not isinstance(cell.outcome, Impossible) and (EVERY or cell.chosen)],
    ids=str,
)
def test_the_user_sees_what_the_table_says(deployment: Deployment, cell: Cell) -> None:
    print(f"SHOAL_CHAOS_SEED={SEED}")
    try:
        seen = strikes.run(deployment.cluster(), cell, FAULT_S, random.Random(f"{SEED} {cell}"))
        match cell.outcome:
            case Sees(again, once):
                assert allows(again, seen["again"]), f"again: {seen['again']}; allowed: {again}"
                assert allows(once, seen["once"]), f"once: {seen['once']}; allowed: {once}"
            case Ends():
                assert seen == {}
    except BaseException:
        deployment.close()
        raise
