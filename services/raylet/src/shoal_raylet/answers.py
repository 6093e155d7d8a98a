"""What processes ask their raylet: answered out of what the node has. Nothing here changes who may run where."""

from __future__ import annotations

import asyncio

from shoal_common.channel import frames
from shoal_common.errors import ServiceError
from shoal_common.service.background import Background
from shoal_raylet.channel.connection import Connection
from shoal_raylet.cluster.nodes import NodeDirectory
from shoal_raylet.leases.actor_placement import ActorPlacement
from shoal_raylet.leases.worker_leases import WorkerLeases
from shoal_raylet.leases.worker_pool import WorkerPool, WorkerState
from shoal_raylet.object_store import ObjectStore
from shoal_raylet.peers import Handlers, Peers
from shoal_raylet.workers.function_cache import FunctionCache
from shoal_raylet.workers.last_replies import LastReplies
from shoal_raylet.workers.output import WorkerOutput


class Answers:
    """Belongs to one event loop. What takes its time runs in ``background``."""

    def __init__(
        self,
        pool: WorkerPool,
        leases: WorkerLeases,
        actors: ActorPlacement,
        peers: Peers,
        output: WorkerOutput,
        store: ObjectStore,
        functions: FunctionCache,
        last_replies: LastReplies,
        directory: NodeDirectory,
        background: Background,
    ) -> None:
        self._pool = pool
        self._leases = leases
        self._actors = actors
        self._peers = peers
        self._output = output
        self._store = store
        self._functions = functions
        self._last_replies = last_replies
        self._directory = directory
        self._background = background
        self._loop = asyncio.get_running_loop()
        #: Of messages from processes.
        self.handlers: Handlers = {
            frames.FunctionGet: self._function_get,
            frames.LastRepliesGet: self._last_replies_get,
            frames.FlushLogs: self._flush_logs,
            frames.NodeFind: self._node_find,
            frames.Explain: self._explain,
        }

    def _function_get(self, connection: Connection, message: frames.FunctionGet) -> None:
        data = self._functions.peek(message.function_id)
        if data is not None:
            connection.send(frames.FunctionData(message.request, data))
        else:
            self._background.spawn(self._fetch_function(connection, message))

    async def _fetch_function(self, connection: Connection, message: frames.FunctionGet) -> None:
        try:
            reply = frames.FunctionData(message.request, await self._functions.get(message.function_id))
        except ServiceError as error:
            text = f"function {message.function_id.hex()} cannot be fetched from the GCS: {error}"
            reply = frames.FunctionData(message.request, b"", text)
        connection.send(reply)

    def _last_replies_get(self, connection: Connection, message: frames.LastRepliesGet) -> None:
        data = self._last_replies.of(message.worker_id)
        connection.send(frames.LastRepliesFound(message.worker_id, data))

    def _flush_logs(self, connection: Connection, message: frames.FlushLogs) -> None:
        self._background.spawn(self._flush(connection, message.request))

    async def _flush(self, connection: Connection, request: int) -> None:
        await self._output.flush()
        connection.send(frames.LogsFlushed(request))

    def _node_find(self, connection: Connection, message: frames.NodeFind) -> None:
        self._background.spawn(self._find_node(connection, message))

    async def _find_node(self, connection: Connection, message: frames.NodeFind) -> None:
        node = await self._directory.find(message.node_id)
        host, port = (node.host, node.channel_port) if node is not None else ("", 0)
        connection.send(frames.NodeFound(message.request, host, port))

    def _explain(self, connection: Connection, message: frames.Explain) -> None:
        worker = None
        if message.actor_id:
            actor = self._actors.get(message.actor_id)
            held = self._pool.workers.get(actor.worker_id) if actor is not None else None
            worker = held.address if held is not None else None
            text = "its constructor runs" if worker is not None else "it waits for a worker process"
        elif message.object_id:
            text = self._store.explain(message.object_id)
        else:
            starting = sum(worker.state is WorkerState.STARTING for worker in self._pool.workers.values())
            text = self._leases.explain(connection.worker_id, message.class_key, starting, self._loop.time())
        connection.send(frames.Explained(message.request, text, worker))
