"""The objectstore service, assembled."""

from __future__ import annotations

from collections.abc import Iterator

import grpc.aio

from shoal_common.blob import BlobStore
from shoal_common.blob.direct import SigningStore
from shoal_common.rpc.server import create_server, join_address, serve
from shoal_common.service.metrics import Sample
from shoal_common.service.settings import Settings
from shoal_objectstore.config import ObjectStoreConfig
from shoal_objectstore.servicer import ObjectStoreServicer
from shoal_proto.v1.objectstore_pb2_grpc import add_ObjectStoreServiceServicer_to_server
from shoal_proto.v1.settings_pb2_grpc import add_SettingsServiceServicer_to_server

#: Transfers under way have this long to finish when the service stops, in seconds.
STOP_GRACE_S = 2.0


class ObjectStoreApp:
    """Streams blobs in and out; keeps nothing in memory, so that any replica serves any blob."""

    def __init__(self, config: ObjectStoreConfig, blobs: BlobStore, signing: SigningStore | None = None) -> None:
        """``signing`` is the same store, if clients have a way of their own to what it keeps."""
        self._config = config
        self._servicer = ObjectStoreServicer(blobs, signing)
        self._server: grpc.aio.Server | None = None
        self.address = ""

    def samples(self) -> Iterator[Sample]:
        """What Prometheus reads."""
        return self._servicer.counts.samples()

    async def start(self) -> None:
        """Raises: OSError when the port cannot be bound."""
        server = create_server(self._config.token)
        add_SettingsServiceServicer_to_server(Settings(self._config), server)
        add_ObjectStoreServiceServicer_to_server(self._servicer, server)
        port = await serve(server, self._config.host, self._config.port, tls=self._config.tls)
        self._server = server
        self.address = join_address(self._config.host, port)

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(STOP_GRACE_S)
            self._server = None
