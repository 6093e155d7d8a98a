"""A word in the logs of all nodes, living and gone: bounded in bytes and time, and it says what was not looked at."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field

from shoal_common.errors import NotFound, ServiceError
from shoal_common.logs.lines import Wanted
from shoal_common.logs.node_logs import KeptLogs
from shoal_dashboard.cluster.cluster import Cluster
from shoal_dashboard.logs.matching import LogFile, Matching, checked, chosen
from shoal_dashboard.logs.query import gone_nodes
from shoal_proto.v1 import gcs_pb2 as pb
from shoal_proto.v1 import raylet_pb2

#: For the names of all files, and for what is in them, in seconds.
LIST_S = 5.0
READ_S = 5.0
#: Nodes whose files are looked for: those that live, the newest first.
MAX_NODES = 200
#: Files that are read at a time.
AT_ONCE = 8
#: Searches at a time; whoever comes then is refused.
MAX_SEARCHES = 2


class TooManySearches(Exception):
    """Others search just now."""


@dataclass(slots=True)
class Found:
    #: With lines that have the word, the one that was written last first.
    files: list[tuple[LogFile, Matching]] = field(default_factory=list)
    #: Read to their ends, in number and in bytes.
    read_files: int = 0
    read_bytes: int = 0
    #: Not read, or not to their ends, and why.
    left: list[tuple[LogFile, str]] = field(default_factory=list)
    #: Nodes whose files are not known, and why.
    left_nodes: list[tuple[pb.NodeInfo, str]] = field(default_factory=list)


class LogSearch:
    """Belongs to one event loop."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._running = 0

    async def run(self, word: str, node_id: str = "", pattern: str = "") -> Found:
        """``node_id``: in hexadecimal, only there; empty = everywhere. ``pattern``: of the names of files, as in a
        shell; empty = all.

        Raises: QueryError, TooManySearches, ServiceError (the GCS does not answer).
        """
        word = checked(word)
        if self._running >= MAX_SEARCHES:
            raise TooManySearches(f"{MAX_SEARCHES} searches run just now: try again in some seconds")
        self._running += 1
        try:
            nodes = [node for node in await self._cluster.nodes() if node_id.lower() in ("", node.node_id.hex())]
            found = Found()
            files = await self._living(nodes, pattern, found)
            files += await self._kept(gone_nodes(nodes, "", ""), pattern, found)
            files, too_much = chosen(files)
            await self._read({node.node_id: node for node in nodes}, files, word, found)
            found.left += [(file, "it is beyond what one search reads") for file in too_much]
            return found
        finally:
            self._running -= 1

    async def _living(self, nodes: Sequence[pb.NodeInfo], pattern: str, found: Found) -> list[LogFile]:
        living = [node for node in nodes if node.state != pb.NODE_STATE_DEAD]
        living.sort(key=lambda node: -node.start_unix_ms)
        found.left_nodes += [(node, f"beyond {MAX_NODES} nodes") for node in living[MAX_NODES:]]
        request = raylet_pb2.ListLogsRequest(pattern=pattern)
        # Each has a deadline of its own.
        answers = await self._cluster.raylets.ask(living[:MAX_NODES], lambda raylet: raylet.ListLogs(request))
        found.left_nodes += answers.missing
        return [
            LogFile(node.node_id, node.host, file.name, file.size, file.modified_unix_ms)
            for node, answer in answers.given
            for file in answer.files
        ]

    async def _kept(self, gone: Sequence[pb.NodeInfo], pattern: str, found: Found) -> list[LogFile]:
        files: list[LogFile] = []
        waiting = deque(gone)
        why = f"there was no time for it within {LIST_S:g} s"
        try:
            async with asyncio.timeout(LIST_S):
                while waiting:
                    node = waiting[0]
                    kept = KeptLogs(await self._cluster.blobs(), node.node_id)
                    files += [
                        LogFile(node.node_id, node.host, name, size, node.end_unix_ms, kept=True)
                        for name, size in (await kept.sizes(pattern)).items()
                    ]
                    waiting.popleft()
        except TimeoutError:
            pass
        except ServiceError as error:
            why = str(error)
        found.left_nodes += [(node, why) for node in waiting]
        return files

    async def _read(
        self, nodes: Mapping[bytes, pb.NodeInfo], files: Sequence[LogFile], word: str, found: Found
    ) -> None:
        waiting = deque(files)
        why_not = f"there was no time for it within {READ_S:g} s"
        matches: dict[LogFile, Matching] = {}
        unread: dict[LogFile, str] = {}
        half_read: dict[LogFile, int] = {}

        async def read_some() -> None:
            while waiting:
                file = waiting.popleft()
                matching = matches[file] = Matching(word)
                half_read[file] = 0
                try:
                    async with contextlib.aclosing(self._lines(nodes[file.node_id], file)) as pieces:
                        async for lines in pieces:
                            found.read_bytes += len(lines)
                            half_read[file] += len(lines)
                            matching.feed(lines)
                except NotFound:
                    unread[file] = "it has been deleted meanwhile"
                except ServiceError as error:
                    unread[file] = str(error)
                else:
                    found.read_files += 1
                del half_read[file]

        readers = [asyncio.create_task(read_some()) for _ in range(min(AT_ONCE, len(files)))]
        try:
            if readers:
                await asyncio.wait(readers, timeout=READ_S)
        finally:
            for reader in readers:
                reader.cancel()
            for ended in await asyncio.gather(*readers, return_exceptions=True):
                if isinstance(ended, Exception):
                    raise ended
        for file, size in half_read.items():
            unread[file] = f"only its first {size:,} of {file.size:,} bytes, in {READ_S:g} s"
        unread |= dict.fromkeys(waiting, why_not)
        found.left += unread.items()
        found.files += [(file, matches[file]) for file in files if file in matches and matches[file].count]

    async def _lines(self, node: pb.NodeInfo, file: LogFile) -> AsyncGenerator[bytes, None]:
        if file.kept:
            pieces = KeptLogs(await self._cluster.blobs(), file.node_id).read(file.name, Wanted())
        else:
            pieces = self._cluster.raylets.read_log(node, raylet_pb2.ReadLogRequest(file=file.name))
        async with contextlib.aclosing(pieces):
            async for lines in pieces:
                yield lines
