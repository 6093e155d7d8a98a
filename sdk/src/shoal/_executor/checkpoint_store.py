"""Where an actor's checkpoints and log are: blobs of the cluster, by way of this node's raylet."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from shoal_common.channel import frames
from shoal_common.channel.codec import MAX_FRAME_BYTES
from shoal_common.kinds import BlobErrorKind

if TYPE_CHECKING:
    from shoal._owner.process import Process

#: A larger blob does not fit into the message that takes it to the raylet.
MAX_BLOB_BYTES = MAX_FRAME_BYTES - 64 * 1024
#: The raylet has answered by then, in seconds: it tries again itself where a service is away.
_ANSWER_S = 120.0
#: Pauses before a store that is away or full is asked again, in seconds: the first, and the longest.
_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0

T = TypeVar("T")


class StoreFailure(Exception):
    """The text says why, for humans."""

    def __init__(self, kind: BlobErrorKind, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind

    @property
    def passes(self) -> bool:
        """It may well be done later."""
        return self.kind in (BlobErrorKind.AWAY, BlobErrorKind.OUT_OF_DISK)


class CheckpointStore:
    """Of the actor of this worker. Thread-safe; every method waits, and raises StoreFailure."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def put(self, name: str, data: bytes, then_list: str | None = None) -> list[str]:
        """Store a blob; returns the names that begin with ``then_list`` (None: none), as they are then."""
        if len(data) > MAX_BLOB_BYTES:
            raise StoreFailure(BlobErrorKind.REFUSED, f"it has {len(data)} bytes, more than {MAX_BLOB_BYTES}")
        return self._ask(lambda number: frames.CheckpointPut(number, name, data, then_list)).names

    def get(self, name: str) -> bytes:
        return self._ask(lambda number: frames.CheckpointGet(number, name)).data

    def names(self) -> list[str]:
        return self._ask(frames.CheckpointList).names

    def delete(self, names: Sequence[str]) -> None:
        if names:
            self._ask(lambda number: frames.CheckpointDelete(number, list(names)))

    def _ask(self, make: Callable[[int], frames.Message]) -> frames.CheckpointDone:
        process = self._process
        answers = process.questions.ask([process.node_id], make, _ANSWER_S)
        if not answers:
            raise StoreFailure(BlobErrorKind.AWAY, f"the raylet did not answer in {_ANSWER_S:g} s")
        answer: frames.CheckpointDone = answers[0]
        if answer.error is not None:
            raise StoreFailure(answer.error, answer.detail)
        return answer


def insist(action: Callable[[], T], patience_s: float, waiting: Callable[[StoreFailure], None]) -> T:
    """Repeat what may be done later for so long. ``waiting`` is called once, when it was not done at first.

    Raises: StoreFailure.
    """
    deadline = time.monotonic() + patience_s
    pause = _PAUSE_S
    while True:
        try:
            return action()
        except StoreFailure as failure:
            if not failure.passes or time.monotonic() + pause > deadline:
                raise
            if pause == _PAUSE_S:
                waiting(failure)
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_S)
