"""Calls of an actor whose process has died: those that had run are answered, however slow its raylet is to tell."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from support.owners import NODE, Party

from shoal import exceptions
from shoal._net.gcs.records import ActorRecord
from shoal._net.last_replies import LastReplies
from shoal._wire.peer_frames import TaskReply
from shoal._wire.value_kinds import INLINE
from shoal_common.channel import frames
from shoal_common.kinds import ExitKind
from shoal_common.states import ActorState

ACTOR = b"a" * 16
Done = Callable[[ActorRecord | None, Exception | None], None]


class Actor:
    """One that ``worker`` is the process of, and what the GCS is asked of it."""

    def __init__(self, driver: Party, worker: Party) -> None:
        self.driver, self.worker = driver, worker
        self.asked: list[Done] = []
        driver.gcs.actors = SimpleNamespace(begin_wait=lambda *asked: self.asked.append(asked[-1]))
        actors = driver.core.actors
        self.client = actors.client(ACTOR, "A", in_order=True, concurrency=10, lifetime=None)
        self.refs = [self._call() for _ in range(2)]
        self.asked.pop()(self.record(ActorState.ALIVE, 1), None)
        self.pushed = [worker.work.next()[1] for _ in range(2)]

    def _call(self) -> Any:
        [ref] = self.driver.core.actors.submit(self.client, "f", None, 1, 0, False, "", None)
        return ref

    def record(self, state: ActorState, version: int) -> ActorRecord:
        address = self.worker.core.address
        return ActorRecord(
            ACTOR, state, version, 0, address, 1, "", "", "A", b"", "", ExitKind.SYSTEM_ERROR, "", *[False] * 4
        )

    def dies(self) -> None:
        """With the first call answered in its file, and the second one begun."""
        self.worker.core.close()
        self.driver.raylet.wait_for(frames.LastRepliesGet)

    def is_dead(self) -> None:
        """As the GCS answers whoever has asked."""
        with self.driver.core.lock:  # who was woken by a message may be faster than what else that message does
            while self.asked:
                self.asked.pop()(self.record(ActorState.DEAD, 2), None)


@pytest.fixture
def actor(driver: Party, worker: Party) -> Actor:
    return Actor(driver, worker)


@pytest.fixture
def left(actor: Actor, tmp_path: Any) -> bytes:
    """What the worker's file has."""
    path = tmp_path / "left"
    file = LastReplies(str(path))
    reply = TaskReply(actor.pushed[0].task_id, 100, INLINE, pickle.dumps("has run", 5))
    assert file.add(actor.driver.core.worker_id, reply)
    (used,) = struct.unpack_from("<I", data := path.read_bytes())
    return data[: used + 4]


def test_what_has_run_is_answered_although_the_gcs_was_faster(actor: Actor, left: bytes) -> None:
    with actor.driver.core.lock:
        actor.driver.core.actors.resolve(actor.client)  # of before, still under way
    actor.dies()
    actor.is_dead()
    actor.driver.raylet.send(frames.LastRepliesFound(actor.worker.core.worker_id, left))
    assert actor.driver.get(actor.refs[0]) == "has run"
    actor.is_dead()
    with pytest.raises(exceptions.ActorDiedError):
        actor.driver.get(actor.refs[1])


def test_nobody_waits_for_a_raylet_that_is_gone(actor: Actor) -> None:
    actor.dies()
    with actor.driver.core.lock:
        actor.driver.core.actors.lost_workers.on_raylet_lost(NODE)
    actor.is_dead()
    for ref in actor.refs:
        with pytest.raises(exceptions.ActorDiedError):
            actor.driver.get(ref)
