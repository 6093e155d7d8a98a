"""When what actors have stored is deleted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shoal_common.service.background import Background
from shoal_gcs.actors.checkpoints import Checkpoints

A, B = b"a" * 16, b"b" * 16


class SpecRows:
    def __init__(self) -> None:
        self.deleted: list[str] = []

    def delete(self, row_id: str) -> None:
        self.deleted.append(row_id)


@pytest.mark.parametrize("possible", [True, False])
def test_deleted_when_the_actor_is_dead_and_its_process_is_gone(possible: bool) -> None:
    async def scenario() -> None:
        background, rows, deleted = Background(), SpecRows(), list[str]()

        async def delete(prefix: str) -> bool:
            deleted.append(prefix)
            return possible

        spec_rows: Any = rows
        checkpoints = Checkpoints(spec_rows, delete, background)
        checkpoints.process_gone(A)  # it restarts
        checkpoints.process_gone(B)  # has kept none
        checkpoints.actor_died(A)
        await background.wait()
        assert deleted == []
        checkpoints.process_gone(A)
        checkpoints.process_gone(A)
        await background.wait()
        assert deleted == [f"checkpoint/{A.hex()}/"]
        # Else a GCS that starts later tries again.
        assert rows.deleted == ([A.hex()] if possible else [])
        await background.stop()

    asyncio.run(scenario())
