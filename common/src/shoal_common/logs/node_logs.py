"""Log files of nodes in the cluster's blobs: what there is of them when the node is gone.

Each file is a `BlobLog` below ``node_log/<node id>/file/<name>/``, whose newest parts are kept. `blob.last_used`
says on which day the node wrote there last; the GCS deletes what no node has written to for days.
"""

from __future__ import annotations

import fnmatch
from collections import deque
from collections.abc import AsyncGenerator

from shoal_common.blob.local import Blobs
from shoal_common.errors import InvalidRequest, NotFound
from shoal_common.logs.blob_log import PART_BYTES, BlobLog
from shoal_common.logs.lines import LineSelection, Wanted, is_log_name, told_of_file

#: Of a file: 4 MiB.
PARTS_KEPT = 16


def place(node_id: bytes) -> str:
    """As `last_used.mark` wants it."""
    return f"node_log/{node_id.hex()}"


def log_of(blobs: Blobs, node_id: bytes, file: str) -> BlobLog:
    """``file``: one that `is_log_name`."""
    return BlobLog(blobs, f"{_files(node_id)}{file}/", PARTS_KEPT)


def _files(node_id: bytes) -> str:
    """What all their keys begin with: the mark of the last day does not."""
    return f"{place(node_id)}/file/"


class KeptLogs:
    """Of one node. Belongs to the event loop of ``blobs``. All methods raise ServiceError."""

    def __init__(self, blobs: Blobs, node_id: bytes) -> None:
        self._blobs = blobs
        self._node_id = node_id

    async def sizes(self, pattern: str = "") -> dict[str, int]:
        """Of the files whose names match, as in a shell: bytes that are kept, by name."""
        prefix = _files(self._node_id)
        sizes: dict[str, int] = {}
        for blob in await self._blobs.list(prefix):
            name = blob.key.removeprefix(prefix).rpartition("/")[0]
            if is_log_name(name) and fnmatch.fnmatchcase(name, pattern or "*"):
                sizes[name] = sizes.get(name, 0) + blob.size_bytes
        return sizes

    async def read(
        self, file: str, wanted: Wanted, *, stderr: bool = False, last: int = 0, fields: bool = False
    ) -> AsyncGenerator[bytes, None]:
        """Whole lines. ``file`` empty: of all files of workers that have some of the wanted ones. ``last`` 0: all of
        them. ``fields``: as JSON objects.

        Raises: NotFound: nothing of it is kept; InvalidRequest.
        """
        if file and not is_log_name(file):
            raise InvalidRequest(f"{file!r} is no name of a log file: they have no folders")
        if not file and wanted.everything:
            raise InvalidRequest("say a file, a task or an actor")
        names = [file] if file else sorted(await self.sizes("worker-*.err" if stderr else "worker-*.out"))
        kept: deque[bytes] = deque(maxlen=last or None)
        found = False
        for name in names:
            async for lines in self._lines(name, wanted, fields):
                found = True
                if last:
                    kept.extend(line + b"\n" for line in lines.split(b"\n")[:-1])
                elif lines:
                    yield lines
        if not found:
            raise NotFound(f"nothing is kept of that on node {self._node_id.hex()}, which is gone")
        if kept:
            yield b"".join(kept)

    async def _lines(self, name: str, wanted: Wanted, fields: bool) -> AsyncGenerator[bytes, None]:
        """Of a file that is there, at least once; of a task or an actor, only where it has printed."""
        log = log_of(self._blobs, self._node_id, name)
        selection = LineSelection(wanted, told_of_file(self._node_id, name) if fields else None)
        offset = await log.begin()
        while (piece := await log.read(offset, PART_BYTES)).data:
            offset = piece.end
            lines = b"".join(selection.feed(piece.data))
            if lines or wanted.everything:
                yield lines
        if rest := b"".join(selection.end()):
            yield rest if rest.endswith(b"\n") else rest + b"\n"
