"""Kinds that travel between processes: one word each, told apart by what it is and never by a message's text."""

from __future__ import annotations

import enum


class ExitKind(enum.StrEnum):
    """How a worker process ended. In common.proto the same names stand behind ``EXIT_KIND_``."""

    UNSPECIFIED = "UNSPECIFIED"
    #: It crashed, or was lost with its node.
    SYSTEM_ERROR = "SYSTEM_ERROR"
    #: Shoal ended it: it was idle, killed, or not needed any more.
    INTENDED_SYSTEM_EXIT = "INTENDED_SYSTEM_EXIT"
    #: The user's code ended it with an error.
    USER_ERROR = "USER_ERROR"
    #: The user's code ended it on purpose.
    INTENDED_USER_EXIT = "INTENDED_USER_EXIT"
    NODE_OUT_OF_MEMORY = "NODE_OUT_OF_MEMORY"
    #: It used more memory than it had asked for, and was not to.
    MEMORY_LIMIT = "MEMORY_LIMIT"


class RefusalKind(enum.StrEnum):
    """Why no worker lease will ever be granted for a scheduling class."""

    #: No node can hold it, even when idle.
    INFEASIBLE = "infeasible"
    #: The one node that may is not there, or cannot hold it.
    AFFINITY = "affinity"
    RUNTIME_ENV = "runtime_env"
    #: Worker processes do not start.
    WORKER_START = "worker_start"
    #: Its placement group does not exist any more.
    GROUP_REMOVED = "placement_group_removed"


class StoreErrorKind(enum.StrEnum):
    """Why a node's object store does not have an object, or no room for it."""

    OBJECT_LOST = "object_lost"
    #: It is ready, and did not come in the time that its reader gave it.
    GET_TIMED_OUT = "get_timed_out"
    #: It is somewhere, and does not come any further.
    FETCH_TIMED_OUT = "fetch_timed_out"
    STORE_FULL = "store_full"
    OUT_OF_DISK = "out_of_disk"


class BlobErrorKind(enum.StrEnum):
    """Why a blob was not stored or read."""

    NOT_FOUND = "not_found"
    #: It is not as it was stored.
    DAMAGED = "damaged"
    OUT_OF_DISK = "out_of_disk"
    #: The asker has no business with it.
    REFUSED = "refused"
    #: What keeps blobs does not answer, or not now.
    AWAY = "away"
