"""``python -m shoal_gcs``: the GCS as a process of its own, on a SQLite file and the in-process event bus."""

from __future__ import annotations

import sys

from shoal_common.bus.memory import MemoryBus
from shoal_common.lifecycle import main
from shoal_common.metadata.sqlite import SqliteMetadataStore
from shoal_gcs.app import GcsApp
from shoal_gcs.config import GcsConfig


class StandaloneGcs:
    """The app, its store and its bus."""

    def __init__(self, config: GcsConfig) -> None:
        self._store = SqliteMetadataStore(config.store_path)
        self._bus = MemoryBus()
        self._app = GcsApp(config, self._store, self._bus)

    @property
    def address(self) -> str:
        return self._app.address

    async def start(self) -> None:
        try:
            await self._app.start()
        except BaseException:
            await self._close()
            raise

    async def stop(self) -> None:
        await self._app.stop()
        await self._close()

    async def _close(self) -> None:
        await self._bus.close()
        await self._store.close()


if __name__ == "__main__":
    sys.exit(main(GcsConfig, StandaloneGcs))
