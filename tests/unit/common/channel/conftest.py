from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.machines import validated

from shoal_common.channel.tunnel import Tunnel


@pytest.fixture(autouse=True)
def _validated(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with validated(monkeypatch, Tunnel):
        yield
