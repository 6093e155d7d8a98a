"""The services of an embedded cluster, wired together in one event loop.

One process hosts the GCS, the scheduler, the objectstore service and one raylet, on SQLite, the in-process event bus
and a directory. It is the code of the separate services with other adapters. It listens on loopback only, with a token
of its own, and ends with its driver, whatever way that ends.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec
import structlog

from shoal_common.blob.directory import DirectoryBlobStore
from shoal_common.bus.memory import MemoryBus
from shoal_common.head_launch import HeadConfig, HeadReady
from shoal_common.metadata.sqlite import SqliteMetadataStore
from shoal_common.service import logging as service_logging
from shoal_gcs.app import GcsApp
from shoal_gcs.config import GcsConfig
from shoal_objectstore.app import ObjectStoreApp
from shoal_objectstore.config import ObjectStoreConfig
from shoal_raylet.app import RayletApp
from shoal_raylet.config import RayletConfig
from shoal_scheduler.app import SchedulerApp
from shoal_scheduler.config import SchedulerConfig

if TYPE_CHECKING:
    from shoal_raylet.workers.template_process import TemplateProcess

log = structlog.get_logger("shoal_head")

HOST = "127.0.0.1"
CLUSTER_ID = "embedded"


def run_head(config: HeadConfig, template: TemplateProcess, ready: IO[bytes]) -> int:
    """Serve until the driver ends or SIGTERM comes; returns the exit code."""
    service_logging.configure("head", config.log_level)
    return asyncio.run(_serve(config, template, ready))


async def _serve(config: HeadConfig, template: TemplateProcess, ready: IO[bytes]) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    try:
        driver = os.pidfd_open(config.driver_pid)
    except ProcessLookupError:
        template.close()
        shutil.rmtree(config.session_dir, ignore_errors=True)
        return 0
    loop.add_reader(driver, stop.set)
    head = Head(config, template)
    try:
        try:
            await head.start()
        except Exception as error:
            log.error("head_start_failed", exc_info=True)
            _tell(ready, HeadReady(error=f"{type(error).__name__}: {error}"))
            return 1
        _tell(ready, head.ready())
        await stop.wait()
        return 0
    finally:
        loop.remove_reader(driver)
        os.close(driver)
        await head.stop()
        # The driver removes the directory after this process; when the driver is gone, nobody else does.
        if not _alive(config.driver_pid):
            shutil.rmtree(config.session_dir, ignore_errors=True)


def _tell(ready: IO[bytes], answer: HeadReady) -> None:
    with ready:
        ready.write(msgspec.json.encode(answer) + b"\n")


def _alive(pid: int) -> bool:
    return os.getppid() == pid


class Head:
    """Starts the services in the order in which they need each other; stops them in the reverse."""

    def __init__(self, config: HeadConfig, template: TemplateProcess) -> None:
        self._config = config
        self._template = template
        self._directory = Path(config.session_dir)
        #: For spilled objects, and for those that find no room in shared memory. Several sessions may share a disk.
        self._spill_directory = Path(config.spill_dir, config.session_name) if config.spill_dir else self._directory
        self._started: list[SchedulerApp | GcsApp | ObjectStoreApp | RayletApp] = []
        self._bus = MemoryBus()
        self._store: SqliteMetadataStore | None = None
        self._gcs: GcsApp | None = None
        self._raylet: RayletApp | None = None

    async def start(self) -> None:
        config, directory = self._config, self._directory
        try:
            scheduler = SchedulerApp(
                SchedulerConfig(token=config.token, host=HOST, port=0, cluster_id=CLUSTER_ID), self._bus
            )
            spill_directory = self._spill_directory / "spill"
            objectstore = ObjectStoreApp(
                ObjectStoreConfig(token=config.token, host=HOST, port=0, directory=spill_directory),
                DirectoryBlobStore(spill_directory),
            )
            for app in (scheduler, objectstore):
                await app.start()
                self._started.append(app)
            self._store = SqliteMetadataStore(directory / "gcs.sqlite", flushed=False)  # it ends with its driver
            self._gcs = gcs = GcsApp(
                GcsConfig(
                    token=config.token,
                    host=HOST,
                    port=0,
                    cluster_id=CLUSTER_ID,
                    session_name=config.session_name,
                    scheduler_addresses=(scheduler.address,),
                    objectstore_addresses=(objectstore.address,),
                    infeasible_grace_s=config.settings["infeasible_grace_s"],
                ),
                self._store,
                self._bus,
            )
            await self._gcs.start()
            self._started.append(self._gcs)
            self._raylet = RayletApp(
                RayletConfig(
                    token=config.token,
                    host=HOST,
                    gcs_address=self._gcs.address,
                    scheduler_addresses=(scheduler.address,),
                    objectstore_address=objectstore.address,
                    blob_directory=spill_directory,
                    blob_min_free_bytes=0,
                    cluster_id=CLUSTER_ID,
                    session_name=config.session_name,
                    session_dir=directory,
                    resources=config.resources,
                    labels=config.labels,
                    object_store_bytes=config.object_store_bytes,
                    metrics_port=config.metrics_port,
                    fallback_dir=self._spill_directory,
                    infeasible_grace_s=config.settings["infeasible_grace_s"],
                    memory_usage_threshold=config.settings["memory_usage_threshold"],
                    store_full_grace_s=config.settings["store_full_grace_s"],
                ),
                self._bus,
                self._template,
                ends_cluster=True,
                beside=lambda: [*gcs.samples(), *scheduler.samples(), *objectstore.samples()],
            )
            await self._raylet.start()
            self._started.append(self._raylet)
        except BaseException:
            if self._raylet is None:
                self._template.close()
            raise

    def ready(self) -> HeadReady:
        assert self._gcs is not None and self._raylet is not None
        return HeadReady(
            gcs_address=self._gcs.address,
            raylet_path=str(self._raylet.channel_path),
            raylet_address=self._raylet.address,
            node_id=self._raylet.node_id.hex(),
        )

    async def stop(self) -> None:
        while self._started:
            await self._started.pop().stop()
        if self._store is not None:
            await self._store.close()
        await self._bus.close()
        if self._spill_directory != self._directory:
            await asyncio.to_thread(shutil.rmtree, self._spill_directory, ignore_errors=True)
