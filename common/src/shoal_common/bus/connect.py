"""Which event bus a service of its own is on, by its settings."""

# ruff: noqa: RUF009 - setting() makes a dataclass field
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shoal_common.bus.bus import EventBus
from shoal_common.bus.gcs import GcsBus
from shoal_common.rpc.client import aio_channel
from shoal_common.service.config import ServiceConfig, from_extra, setting
from shoal_common.tls import ServerTls


@dataclass(frozen=True, kw_only=True)
class BusConfig(ServiceConfig):
    """A service that is on the event bus."""

    nats_address: str = setting(
        "",
        doc="host:port of NATS, several of one cluster separated by commas; its token is the cluster's. Empty = the "
        "GCS carries the events",
    )
    nats_ca: Path | None = setting(
        None, doc="PEM file of the authority that signed NATS's certificate; TLS to NATS is on when it is given"
    )
    nats_cert: Path | None = setting(None, doc="PEM file of this process's certificate, if NATS asks for one")
    nats_key: Path | None = setting(None, doc="PEM file of its key")
    nats_server_name: str = setting("", doc="name in NATS's certificate; empty = the host of its address")
    start_timeout_s: float = setting(
        60.0, doc="etcd, NATS or the GCS are waited for so long at the start", unit="seconds", minimum=0.1
    )

    @property
    def nats_tls(self) -> ServerTls | None:
        """Raises: TlsError when the files cannot be used."""
        return ServerTls.from_files(self.nats_ca, self.nats_cert, self.nats_key, self.nats_server_name)


async def connect_nats(config: BusConfig) -> EventBus:
    """Raises: EventBusError when NATS refuses the token, or is not reached in time; TlsError; ConfigError."""
    with from_extra("deploy"):  # its client is not installed where only embedded clusters run
        from shoal_common.bus.nats import NatsBus

    return await NatsBus.connect(config.nats_address, config.token, config.start_timeout_s, tls=config.nats_tls)


async def connect_bus(config: BusConfig, gcs_address: str) -> EventBus:
    """NATS if there is one, else the GCS, which is only reached when it is needed. Raises: as `connect_nats`."""
    if config.nats_address:
        return await connect_nats(config)
    channel = aio_channel(gcs_address, config.token, tls=config.tls)
    return GcsBus(channel, owns_channel=True, deadline_s=config.start_timeout_s)
