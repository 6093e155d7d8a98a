"""One process of the GCS: alone on a SQLite file, or one of several on etcd, of which one leads.

A standby has its connections to etcd and NATS and waits. It does not listen on the GCS's port, so the channels of
clients that know several addresses pass it by; only the health port answers in both roles.

One that has lost the lead becomes a standby again, with a new store: what the old one still had to write is fenced for
good. It used to end and be started again, but where nobody does that, two pauses of a machine were the cluster's end.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from shoal_common.bus import EventBus
from shoal_common.bus.connect import connect_nats
from shoal_common.bus.memory import MemoryBus
from shoal_common.metadata import MetadataStore, MetadataStoreError, StoreRefused
from shoal_common.metadata.sqlite import SqliteMetadataStore
from shoal_common.rpc import server as grpc_server
from shoal_common.service.config import ConfigError, from_extra
from shoal_common.service.metrics import Sample, sample
from shoal_common.service.settings import Settings
from shoal_gcs.app import GcsApp
from shoal_gcs.config import GcsConfig
from shoal_gcs.measurements import EPOCH, LEADS
from shoal_proto.v1.settings_pb2_grpc import add_SettingsServiceServicer_to_server

if TYPE_CHECKING:
    from shoal_common.metadata.etcd import EtcdMetadataStore

_log = structlog.get_logger()


class GcsReplica:
    """The app, its store and its bus."""

    def __init__(self, config: GcsConfig) -> None:
        self._config = config
        self._open = AsyncExitStack()
        self._role: asyncio.Future[str]
        #: ``host:port`` of its gRPC server; empty on standby.
        self.address = ""
        #: None on standby.
        self._app: GcsApp | None = None
        #: Of its lead; 0 = none that is counted.
        self._epoch = 0

    def samples(self) -> Iterator[Sample]:
        """What Prometheus reads; of a standby little."""
        app = self._app
        yield sample(LEADS, app is not None)
        yield sample(EPOCH, self._epoch)
        if app is not None:
            yield from app.samples()

    async def start(self) -> None:
        """Returns when it serves, or is ready to take over.

        Raises: ConfigError, EventBusError, MetadataStoreError, OSError, TlsError.
        """
        config = self._config
        try:
            if config.etcd:
                store = await self._join_etcd()
                self._open.push_async_callback(store.close)  # again, unless the start fails before it is a candidate
                bus = await self._connect_bus()
                await self._serve_health()
                self._role = asyncio.create_task(self._campaign(store, bus), name="candidate")
                self._open.push_async_callback(self._end, self._role)
            else:
                sqlite = SqliteMetadataStore(config.store_path)
                self._open.push_async_callback(sqlite.close)
                bus = await self._connect_bus()
                await self._serve_health()
                await self._serve(self._open, sqlite, bus)
                self._role = asyncio.get_running_loop().create_future()
        except BaseException:
            await self._open.aclose()
            raise

    async def failed(self) -> str:
        await asyncio.wait([self._role])
        error = self._role.exception()
        return f"{type(error).__name__}: {error}" if error is not None else self._role.result()

    async def stop(self) -> None:
        """A standby takes over at once."""
        await self._open.aclose()

    async def _campaign(self, store: EtcdMetadataStore, bus: EventBus) -> str:
        """Lead as soon as nobody else does, and stand by again after that. Raises: what a start does; StoreRefused."""
        while True:
            async with AsyncExitStack() as candidacy:
                candidacy.push_async_callback(store.close)
                reason = await self._reign(store, bus)
            _log.error("gcs_leads_no_more", reason=reason)
            store = await self._join_again()

    async def _reign(self, store: EtcdMetadataStore, bus: EventBus) -> str:
        """Returns when it leads no more, and why."""
        config = self._config
        async with AsyncExitStack() as reign:
            name = f"{socket.gethostname()}, port {config.port}, process {os.getpid()}"
            leadership = await store.lead(name, config.leader_ttl_s)
            reign.push_async_callback(leadership.resign)
            reign.callback(self._stand_by)
            self._epoch = leadership.epoch
            try:
                await self._serve(reign, store, bus)
            except StoreRefused:
                raise
            except MetadataStoreError as error:
                return f"it could not read what there is: {error}"
            _log.info("gcs_leads", address=self.address, epoch=leadership.epoch)
            return await leadership.lost()

    def _stand_by(self) -> None:
        self._app, self.address, self._epoch = None, "", 0

    async def _serve(self, stack: AsyncExitStack, store: MetadataStore, bus: EventBus) -> None:
        app = GcsApp(self._config, store, bus)
        await app.start()
        stack.push_async_callback(app.stop)
        self._app, self.address = app, app.address

    async def _join_etcd(self) -> EtcdMetadataStore:
        with from_extra("deploy"):  # its client is not installed everywhere
            from shoal_common.metadata.etcd import EtcdMetadataStore
            from shoal_common.metadata.etcd_shard import EtcdAccess

        config = self._config
        access = EtcdAccess(config.etcd_user, _password(config.etcd_password_file), config.etcd_tls)
        store = EtcdMetadataStore(config.etcd, access=access)
        try:
            await store.join(config.cluster_id, config.start_timeout_s)
        except BaseException:
            await store.close()
            raise
        return store

    async def _join_again(self) -> EtcdMetadataStore:
        """However long etcd is away: it is what this process waits for. Raises: StoreRefused."""
        while True:
            try:
                return await self._join_etcd()
            except StoreRefused:
                raise
            except MetadataStoreError as error:
                _log.warning("etcd_not_joined_again", reason=str(error))

    async def _connect_bus(self) -> EventBus:
        bus = await connect_nats(self._config) if self._config.nats_address else MemoryBus()
        self._open.push_async_callback(bus.close)
        return bus

    async def _serve_health(self) -> None:
        """Not before etcd and NATS have been reached: who waits for them could not take over."""
        if not self._config.health_port:
            return
        server = grpc_server.create_server(self._config.token)
        add_SettingsServiceServicer_to_server(Settings(self._config), server)
        await grpc_server.serve(server, self._config.host, self._config.health_port, tls=self._config.tls)
        self._open.push_async_callback(server.stop, None)

    @staticmethod
    async def _end(role: asyncio.Future[str]) -> None:
        role.cancel()
        await asyncio.wait([role])


def _password(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text().strip()
    except OSError as error:
        raise ConfigError(f"etcd's password cannot be read from {path}: {error.strerror}") from error
