"""Small blobs that a neighbour stores: which way they go, and what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from support.memory_blobs import MemoryBlobs

from shoal_common.channel import frames
from shoal_common.errors import OutOfDisk
from shoal_proto.v1 import gcs_pb2
from shoal_raylet.transfer.links import LinkLost
from shoal_raylet.transfer.neighbours import MAX_BYTES, Neighbours

KEEPER, OTHER = b"keeper", b"other"
PLACE = "checkpoint/actor/"


class Connection:
    """Another raylet's."""

    def __init__(self) -> None:
        self.answers: list[frames.CheckpointDone] = []
        self.closed = ""

    def send(self, message: frames.CheckpointDone) -> None:
        self.answers.append(message)

    def close(self, reason: str) -> None:
        self.closed = reason


class Node:
    """One without the directory, and one that has it: what is kept there, and what the service has been given."""

    def __init__(self, keepers: tuple[bytes, ...] = (KEEPER,)) -> None:
        self.kept, self.by_service = MemoryBlobs(), MemoryBlobs()
        self.lost = False
        nodes = [gcs_pb2.NodeInfo(node_id=node, has_blobs=node in keepers) for node in (OTHER, KEEPER)]
        links: Any = SimpleNamespace(ask=self._ask)
        self.keeper = Neighbours(self.kept, True, links, lambda: nodes)
        self.node = Neighbours(self.by_service, False, links, lambda: nodes)

    async def _ask(self, node_id: bytes, question: frames.CheckpointPut, timeout_s: float) -> frames.CheckpointDone:
        assert node_id == KEEPER
        if self.lost:
            raise LinkLost("it does not answer")
        connection = Connection()
        self.keeper.handlers[type(question)](connection, question)  # type: ignore[arg-type]
        await self.keeper._background.wait()
        assert not connection.closed
        return connection.answers[0]

    async def put(self, name: str, data: bytes = b"calls") -> list[str]:
        return await self.node.put_then_list(PLACE + name, data, PLACE + "incarnation/")


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scenario())


def test_a_part_is_stored_by_the_node_with_the_directory() -> None:
    async def scenario() -> None:
        node = Node()
        assert await node.put("incarnation/1", b"") == [PLACE + "incarnation/1"]
        assert await node.put("log/1") == [PLACE + "incarnation/1"]
        assert node.kept.blobs[PLACE + "log/1"] == b"calls"
        assert not node.by_service.blobs

    run(scenario)


def test_what_is_large_and_where_no_node_has_the_directory_the_service_is_asked() -> None:
    async def scenario() -> None:
        node = Node()
        await node.put("log/1", bytes(MAX_BYTES + 1))
        assert list(node.by_service.blobs) == [PLACE + "log/1"]
        node = Node(keepers=())
        await node.put("log/1")
        assert list(node.by_service.blobs) == [PLACE + "log/1"]

    run(scenario)


def test_while_the_neighbour_does_not_answer_the_service_is_asked() -> None:
    async def scenario() -> None:
        node = Node()
        node.lost = True
        await node.put("log/1")
        node.lost = False
        await node.put("log/2")
        assert list(node.by_service.blobs) == [PLACE + "log/1", PLACE + "log/2"]
        assert not node.kept.blobs

    run(scenario)


def test_errors_are_the_same_as_the_services() -> None:
    async def scenario() -> None:
        node = Node()
        node.kept.failure = OutOfDisk("no room")
        with pytest.raises(OutOfDisk, match="no room"):
            await node.put("log/1")

    run(scenario)


@pytest.mark.parametrize("name", ["spill/x", "package/x"])
def test_nothing_else_is_stored_for_others(name: str) -> None:
    async def scenario() -> None:
        node, connection = Node(), Connection()
        node.keeper.handlers[frames.CheckpointPut](connection, frames.CheckpointPut(1, name, b"", ""))  # type: ignore[arg-type]
        assert connection.closed and not connection.answers

    run(scenario)


def test_a_node_without_the_directory_stores_nothing_for_others() -> None:
    async def scenario() -> None:
        node, connection = Node(), Connection()
        question = frames.CheckpointPut(1, PLACE + "log/1", b"", "")
        node.node.handlers[frames.CheckpointPut](connection, question)  # type: ignore[arg-type]
        assert connection.closed and not connection.answers

    run(scenario)
