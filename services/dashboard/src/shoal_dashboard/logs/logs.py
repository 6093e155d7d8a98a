"""Logs as they lie on the nodes, read through the raylets there; of nodes that are gone, what they had brought to the
cluster's blobs."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncGenerator

from shoal_common.blob.client import BlobClient
from shoal_common.errors import NO_ANSWER, NotFound, ServiceError
from shoal_common.logs.lines import Wanted
from shoal_common.logs.node_logs import KeptLogs
from shoal_dashboard.cluster.cluster import Cluster
from shoal_dashboard.logs.query import LogQuery, QueryError, gone_nodes, grouped, nodes_to_ask, request, worker_file
from shoal_proto.v1 import gcs_pb2 as pb

_COLOURS = re.compile(rb"\x1b\[[0-9;]*[A-Za-z]")


class Logs:
    """Belongs to one event loop. All methods raise: QueryError, NotFound, Unavailable, DeadlineExceeded."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def files(self, node_id: str, node_ip: str, pattern: str) -> dict[str, list[str]]:
        """Names of a node's files by kind."""
        if not node_id and not node_ip:
            raise QueryError("say which node: node_id or node_ip")
        every = await self._cluster.nodes()
        try:
            living = nodes_to_ask(every, node_id.lower(), node_ip)
        except QueryError:
            if not (gone := gone_nodes(every, node_id.lower(), node_ip)):
                raise
            return grouped(list(await KeptLogs(await self._cluster.blobs(), gone[0].node_id).sizes(pattern)))
        return grouped([file.name for file in await self._cluster.raylets.list_logs(living[0], pattern)])

    async def read(self, query: LogQuery) -> AsyncGenerator[bytes, None]:
        """Whole lines."""
        every = await self._cluster.nodes()
        gone = gone_nodes(every, query.node_id, query.node_ip)
        try:
            nodes = nodes_to_ask(every, query.node_id, query.node_ip)
        except QueryError:
            if not gone:
                raise
            nodes = []
        filename = query.filename
        if query.pid:
            nodes, filename = await self._of_pid(nodes, query)
        unanswered: ServiceError | None = None
        for node in nodes:
            try:
                # Closed at once when the reader leaves: the raylet need not follow for nobody.
                async with contextlib.aclosing(self._cluster.raylets.read_log(node, request(query, filename))) as data:
                    async for piece in data:
                        yield _COLOURS.sub(b"", piece) if query.without_colours else piece
                return
            except NotFound:
                continue  # another node has it
            except NO_ANSWER as error:
                unanswered = error
        if unanswered is not None:
            raise unanswered
        if gone and not query.pid:
            blobs = await self._cluster.blobs()
            for node in gone:
                try:
                    async with contextlib.aclosing(_kept(blobs, node, query)) as data:
                        async for piece in data:
                            yield _COLOURS.sub(b"", piece) if query.without_colours else piece
                    return
                except NotFound:
                    continue
        whose = next(filter(None, (query.filename, query.task_id, query.actor_id, str(query.pid))))
        raise NotFound(f"no node that lives has anything that {whose} has printed, nor one that is gone")

    async def _of_pid(self, nodes: list[pb.NodeInfo], query: LogQuery) -> tuple[list[pb.NodeInfo], str]:
        """Where a worker is, and its file."""
        wanted = {node.node_id for node in nodes}
        for node, stats in (await self._cluster.stats()).given:
            for worker in stats.workers:
                if worker.pid == query.pid and node.node_id in wanted:
                    return [node], worker_file(worker.worker_id, query.stderr)
        raise NotFound(f"no worker that runs has the pid {query.pid}: files of ended ones are read by their names")


def _kept(blobs: BlobClient, node: pb.NodeInfo, query: LogQuery) -> AsyncGenerator[bytes, None]:
    wanted = Wanted(query.task_id, query.attempt if query.task_id else None, query.actor_id)
    logs = KeptLogs(blobs, node.node_id)
    return logs.read(query.filename, wanted, stderr=query.stderr, last=query.lines, fields=query.json)
