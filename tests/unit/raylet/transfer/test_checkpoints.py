"""What workers store for their actors: each below its own place, with errors by kind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from support.memory_blobs import MemoryBlobs

from shoal_common.channel import frames
from shoal_common.errors import DataLoss, OutOfDisk, ServiceError, Unavailable
from shoal_common.kinds import BlobErrorKind
from shoal_raylet.transfer.checkpoints import Checkpoints

ACTOR, WORKER = b"a" * 16, b"w" * 16
PLACE = f"checkpoint/{ACTOR.hex()}/"


class Worker:
    """Its connection, and the answers that it gets."""

    worker_id = WORKER

    def __init__(self) -> None:
        self.answers: asyncio.Queue[frames.CheckpointDone] = asyncio.Queue()

    def send(self, message: frames.CheckpointDone) -> None:
        self.answers.put_nowait(message)


def checkpoints_of(blobs: MemoryBlobs, actor_of: Callable[[bytes], bytes]) -> Checkpoints:
    async def put_then_list(key: str, data: bytes, prefix: str) -> list[str]:
        return [blob.key for blob in await blobs.put_then_list(key, data, prefix)]

    return Checkpoints(blobs, put_then_list, actor_of)


def asked(blobs: MemoryBlobs, *messages: frames.Message, actor: bytes = ACTOR) -> list[frames.CheckpointDone]:
    """The answers to these, one after the other."""

    async def ask() -> list[frames.CheckpointDone]:
        checkpoints, worker = checkpoints_of(blobs, {WORKER: actor}.__getitem__), Worker()
        connection: Any = worker
        answers = []
        for message in messages:
            checkpoints.handlers[type(message)](connection, message)
            answers.append(await worker.answers.get())
        await checkpoints.stop()
        return answers

    return asyncio.run(ask())


def test_stored_listed_read_and_deleted() -> None:
    blobs = MemoryBlobs()
    blobs.blobs["checkpoint/other/x"] = b"of another actor"
    put, get, names, deleted, rest = asked(
        blobs,
        frames.CheckpointPut(1, "log/1", b"calls", then_list="log/"),
        frames.CheckpointGet(2, "log/1"),
        frames.CheckpointList(3),
        frames.CheckpointDelete(4, ["log/1", "log/2"]),
        frames.CheckpointList(5),
    )
    assert (put.request, put.error, put.names) == (1, None, ["log/1"])
    assert get.data == b"calls"
    assert names.names == ["log/1"]
    assert (deleted.error, rest.names) == (None, [])
    assert list(blobs.blobs) == ["checkpoint/other/x"]


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (DataLoss("torn"), BlobErrorKind.DAMAGED),
        (OutOfDisk("full"), BlobErrorKind.OUT_OF_DISK),
        (Unavailable("away"), BlobErrorKind.AWAY),
        (OSError("broken"), BlobErrorKind.AWAY),
    ],
)
def test_errors_by_kind(failure: ServiceError | OSError, kind: BlobErrorKind) -> None:
    blobs = MemoryBlobs()
    blobs.failure = failure
    for answer in asked(blobs, frames.CheckpointPut(1, "x", b""), frames.CheckpointGet(2, "x")):
        assert (answer.error, answer.detail) == (kind, str(failure))


def test_what_a_worker_was_storing_when_it_ended_does_not_arrive() -> None:
    blobs = MemoryBlobs()

    async def end_while_it_stores() -> None:
        checkpoints, worker = checkpoints_of(blobs, {WORKER: ACTOR}.__getitem__), Worker()
        connection: Any = worker
        blobs.arrives.clear()
        for number in range(2):
            message = frames.CheckpointPut(number, f"{number}", b"")
            checkpoints.handlers[frames.CheckpointPut](connection, message)
        await asyncio.sleep(0)
        checkpoints.worker_ended(WORKER)
        blobs.arrives.set()
        await checkpoints.stop()
        checkpoints.worker_ended(WORKER)

    asyncio.run(end_while_it_stores())
    assert not blobs.blobs


def test_what_is_not_there() -> None:
    (answer,) = asked(MemoryBlobs(), frames.CheckpointGet(1, "x"))
    assert answer.error is BlobErrorKind.NOT_FOUND


def test_worker_without_an_actor() -> None:
    (answer,) = asked(MemoryBlobs(), frames.CheckpointPut(1, "x", b""), actor=b"")
    assert (answer.request, answer.error) == (1, BlobErrorKind.REFUSED)
