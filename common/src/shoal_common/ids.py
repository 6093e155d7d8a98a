"""Identifiers: plain ``bytes`` at run time, distinct types for the type checker.

Layout (lengths in bytes): a task is ``job (4) + submitter (8) + counter (8)``, an object is ``task (20) + index (4)``,
a function ``job (4) + random (16)``. An id so names its job and its task without a lookup, and a process makes ids
without asking anybody: the submitter part is random and belongs to one process. Nil, which stands for none where
programs see ids, is all ones.
"""

from __future__ import annotations

import itertools
import os
from typing import NewType

JobID = NewType("JobID", bytes)
NodeID = NewType("NodeID", bytes)
WorkerID = NewType("WorkerID", bytes)
ActorID = NewType("ActorID", bytes)
TaskID = NewType("TaskID", bytes)
ObjectID = NewType("ObjectID", bytes)
LeaseID = NewType("LeaseID", bytes)
PlacementGroupID = NewType("PlacementGroupID", bytes)

JOB_LENGTH = 4
UNIQUE_LENGTH = 16
NODE_LENGTH = 16
WORKER_LENGTH = 16
ACTOR_LENGTH = 16
PLACEMENT_GROUP_LENGTH = 16
TASK_LENGTH = 20
FUNCTION_LENGTH = 20
OBJECT_LENGTH = 24


def random(length: int) -> bytes:
    return os.urandom(length)


def nil(length: int) -> bytes:
    return b"\xff" * length


def is_nil(id_: bytes) -> bool:
    return id_ == nil(len(id_))


def job_of_number(number: int) -> JobID:
    """Raises: OverflowError below 0 and from 2**32."""
    return JobID(number.to_bytes(JOB_LENGTH, "big"))


def number_of_job(job_id: bytes) -> int:
    return int.from_bytes(job_id, "big")


def new_node_id() -> NodeID:
    return NodeID(os.urandom(NODE_LENGTH))


def new_worker_id() -> WorkerID:
    return WorkerID(os.urandom(WORKER_LENGTH))


def new_lease_id() -> LeaseID:
    return LeaseID(os.urandom(8))


def new_actor_id(job_id: JobID) -> ActorID:
    """An actor id; the last bytes are the job's, so that ``job_of_actor`` needs no lookup."""
    return ActorID(os.urandom(ACTOR_LENGTH - JOB_LENGTH) + job_id)


def new_placement_group_id(job_id: JobID) -> PlacementGroupID:
    """Its last bytes are the job's, as an actor's."""
    return PlacementGroupID(os.urandom(PLACEMENT_GROUP_LENGTH - JOB_LENGTH) + job_id)


def job_of_actor(actor_id: bytes) -> JobID:
    return JobID(actor_id[-JOB_LENGTH:])


def job_of(id_: bytes) -> JobID:
    """Of a task, an object or a function."""
    return JobID(id_[:JOB_LENGTH])


def task_of_object(object_id: bytes) -> TaskID:
    return TaskID(object_id[:TASK_LENGTH])


#: What the id of a task's first return has behind the task's own: on the way of a call it is put there by hand.
FIRST_RETURN = bytes(4)


def object_of_task(task_id: bytes, index: int) -> ObjectID:
    """The ``index``-th return of a task (0-based); deterministic, so a retry yields the same object."""
    return ObjectID(task_id + index.to_bytes(4, "big"))


def task_of_creation(actor_id: bytes) -> TaskID:
    """What an actor's constructor runs as, in each of its processes."""
    return TaskID(actor_id + b"\xff" * (TASK_LENGTH - ACTOR_LENGTH))


def new_function_id(job_id: bytes) -> bytes:
    return job_id + os.urandom(FUNCTION_LENGTH - JOB_LENGTH)


class TaskIDs:
    """Makes the task ids of one process. ``put`` takes an id from here too: an object without a task."""

    def __init__(self, job_id: JobID) -> None:
        self._prefix = job_id + os.urandom(8)
        self._counter = itertools.count(1)

    def next(self) -> TaskID:
        return TaskID(self._prefix + next(self._counter).to_bytes(8, "big"))

    def is_latest(self, task_id: bytes) -> bool:
        """Whether none has been made after it. Uses one up, so that ``next`` need not write down its last."""
        return task_id == self._prefix + (next(self._counter) - 1).to_bytes(8, "big")
