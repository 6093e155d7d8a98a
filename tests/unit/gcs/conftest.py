from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.machines import validated

from shoal_gcs.actors.placement_queue import PlacementQueue
from shoal_gcs.actors.table import ActorTable
from shoal_gcs.groups.table import PlacementGroupTable
from shoal_gcs.groups.turns import Turns
from shoal_gcs.jobs.named_jobs import NamedJobTable
from shoal_gcs.jobs.table import JobTable
from shoal_gcs.named_objects.table import NamedObjectTable
from shoal_gcs.nodes.table import NodeTable
from shoal_gcs.objects.table import LocationTable


@pytest.fixture(autouse=True)
def _validated(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    tables = (NodeTable, JobTable, NamedJobTable, NamedObjectTable, LocationTable)
    with validated(monkeypatch, ActorTable, PlacementQueue, PlacementGroupTable, Turns, *tables):
        yield
