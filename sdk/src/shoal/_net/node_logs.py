"""The log files of one node, as its raylet reads them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from shoal_common.rpc.client import service_errors, sync_channel
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
