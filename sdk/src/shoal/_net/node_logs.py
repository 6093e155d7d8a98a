"""The log files of one node, as its raylet reads them; or what is kept of them when it is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass

import grpc.aio

from shoal_common.blob.client import BlobClient
from shoal_common.errors import NotFound
from shoal_common.logs.lines import Wanted
from shoal_common.logs.node_logs import KeptLogs
from shoal_common.rpc.client import aio_channel, service_errors, sync_channel
from shoal_common.tls import Tls
from shoal_proto.v1 import raylet_pb2
from shoal_proto.v1.raylet_pb2_grpc import RayletServiceStub

#: Files are listed within so many seconds.
_LIST_S = 10.0
#: A file may take so long to be read, and to be followed, in seconds.
_READ_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class LogFile:
    name: str
    #: In bytes, with what was rotated away.
    size: int
    #: 0 = not known.
    modified_unix_ms: int


class NodeLogs:
    """All methods raise ServiceError: NotFound for what is not there, InvalidRequest for what is no name of a file,
    Unavailable when the raylet does not answer."""

    def __init__(self, raylet_address: str, token: str, tls: Tls | None) -> None:
        self._channel = sync_channel(raylet_address, token, tls=tls)
        self._raylet = RayletServiceStub(self._channel)

    def list(self, pattern: str = "") -> list[LogFile]:
        """Those whose names match, as in a shell."""
        with service_errors():
            response = self._raylet.ListLogs(raylet_pb2.ListLogsRequest(pattern=pattern), timeout=_LIST_S)
        return [LogFile(file.name, file.size, file.modified_unix_ms) for file in response.files]

    def read(
        self,
        file: str = "",
        *,
        task_id: str = "",
        attempt: int | None = None,
        actor_id: str = "",
        stderr: bool = False,
        last_lines: int = 0,
        follow: bool = False,
        json: bool = False,
    ) -> Iterator[bytes]:
        """Whole lines, those of a task or actor only if one is named (in hexadecimal). ``file`` empty: of all files
        that have some. ``last_lines`` 0: all. ``follow``: until their worker has ended."""
        request = raylet_pb2.ReadLogRequest(
            file=file,
            task_id=task_id,
            attempt=0 if attempt is None else attempt + 1,
            actor_id=actor_id,
            stderr=stderr,
            last_lines=last_lines,
            follow=follow,
            json=json,
        )
        with service_errors():
            for piece in self._raylet.ReadLog(request, timeout=_READ_S):
                yield piece.data

    def close(self) -> None:
        self._channel.close()


class GoneNodeLogs:
    """As `NodeLogs`, of what the node had brought to the cluster's blobs. Belongs to one thread."""

    def __init__(self, objectstore_addresses: Sequence[str], token: str, tls: Tls | None, node_id: bytes) -> None:
        """Raises: NotFound: the cluster has no store of blobs."""
        if not objectstore_addresses:
            raise NotFound("this cluster has no objectstore service, in which logs of nodes that are gone are kept")
        self._loop = asyncio.new_event_loop()

        async def connect() -> grpc.aio.Channel:
            return aio_channel(",".join(objectstore_addresses), token, tls=tls)

        self._channel = self._loop.run_until_complete(connect())
        self._blobs = BlobClient(self._channel)
        self._logs = KeptLogs(self._blobs, node_id)

    def list(self, pattern: str = "") -> list[LogFile]:
        sizes = self._loop.run_until_complete(self._logs.sizes(pattern))
        return [LogFile(name, size, 0) for name, size in sizes.items()]

    def read(
        self,
        file: str = "",
        *,
        task_id: str = "",
        attempt: int | None = None,
        actor_id: str = "",
        stderr: bool = False,
        last_lines: int = 0,
        follow: bool = False,
        json: bool = False,
    ) -> Iterator[bytes]:
        """Nothing comes any more, so there is nothing to ``follow``."""
        wanted = Wanted(task_id, attempt, actor_id)
        lines: AsyncGenerator[bytes, None] = self._logs.read(file, wanted, stderr=stderr, last=last_lines, fields=json)
        try:
            while True:
                try:
                    yield self._loop.run_until_complete(anext(lines))
                except StopAsyncIteration:
                    return
        finally:
            self._loop.run_until_complete(lines.aclose())

    def close(self) -> None:
        self._loop.run_until_complete(self._blobs.close())
        self._loop.run_until_complete(self._channel.close())
        self._loop.close()
