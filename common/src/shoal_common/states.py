"""The states of what the GCS keeps, for it and for those it tells. The numbers are those of gcs.proto."""

from __future__ import annotations

import enum


class NodeState(enum.IntEnum):
    ALIVE = 1
    #: It is about to leave: nothing new is placed there.
    DRAINING = 2
    DEAD = 3


class ActorState(enum.IntEnum):
    DEPENDENCIES_UNREADY = 1
    PENDING_CREATION = 2
    ALIVE = 3
    RESTARTING = 4
    DEAD = 5


class SubmissionState(enum.IntEnum):
    """Of a program that was handed in to be run as a job; the names are those of Ray's ``JobStatus``."""

    #: It waits for others to end, for its supervisor, or for resources.
    PENDING = 1
    RUNNING = 2
    STOPPED = 3
    SUCCEEDED = 4
    FAILED = 5


class GroupState(enum.IntEnum):
    """Of a placement group."""

    #: No bundle is reserved.
    PENDING = 1
    #: All bundles are reserved, and not all usable yet.
    PREPARED = 2
    #: All bundles are usable.
    CREATED = 3
    REMOVED = 4
    #: Some bundles were lost with their node, and a place is sought for them.
    RESCHEDULING = 5


class PlacementStrategy(enum.IntEnum):
    """How the bundles of a placement group lie on the nodes."""

    #: On few.
    PACK = 1
    #: On many.
    SPREAD = 2
    #: On one.
    STRICT_PACK = 3
    #: Each on its own.
    STRICT_SPREAD = 4
