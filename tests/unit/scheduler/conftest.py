from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.machines import validated

from shoal_scheduler.cluster_view import ClusterView
from shoal_scheduler.policies.ranking import Ranking


@pytest.fixture(autouse=True)
def _validated(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with validated(monkeypatch, ClusterView, Ranking):
        yield
