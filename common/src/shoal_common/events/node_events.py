"""What a node tells of itself and of the tasks of its processes: numbered reports, to whoever has said that it listens.

A node keeps its newest reports. Who listens says every ``LISTENING_S`` seconds up to which number it has them, by node:
what it lacks comes again, as long as the node has it, and is known to be lost otherwise. While nobody listens nothing
is published.

Task events pass through the node as the bytes that their process has made of them. Counts are added up by the node, and
are those of all its processes since it began: whoever has its newest report of a function has them all.
"""

from __future__ import annotations

import msgspec

from shoal_common.events.task_events import FunctionTally

#: Who listens says so every so many seconds ...
LISTENING_S = 5.0
#: ... and is taken to listen no more when it has not for so many.
DEAF_AFTER_S = 20.0
#: Between two tellings of a node's load, in seconds.
LOAD_S = 5.0


SEVERITIES = ("INFO", "WARNING", "ERROR")


class ClusterEvent(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """Something has happened to a worker, a node, an environment ..."""

    at_ms: int
    #: As WORKER_DIED.
    kind: str
    #: One of ``SEVERITIES``.
    severity: str
    #: Who says so: RAYLET, GCS.
    source: str
    #: For humans.
    message: str
    #: Hexadecimal, by name: node_id, worker_id, actor_id, job_id, placement_group_id.
    ids: dict[str, str]


class ProcessEvents(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """Of one process: ``task_events.decode_events``."""

    worker_id: bytes
    events: bytes


class ProcessInfo(msgspec.Struct, array_like=True, gc=False, frozen=True):
    worker_id: bytes
    pid: int
    job_id: bytes
    actor_id: bytes
    started_ms: int
    #: 0 = it lives.
    ended_ms: int = 0
    #: An ``ExitKind``, and more for humans.
    exit_kind: str = ""
    exit_detail: str = ""
    is_driver: bool = False


class NodeReport(msgspec.Struct, array_like=True, gc=False):
    node_id: bytes
    #: Of the raylet: another one counts from the beginning.
    incarnation: int
    #: From 1.
    number: int
    #: The oldest that the node has still.
    oldest: int
    at_ms: int
    #: Of the whole node; those that have changed.
    tallies: list[FunctionTally] = []
    events: list[ProcessEvents] = []
    #: That have changed. What one that has ended has submitted and was not told to have ended never ends any more.
    workers: list[ProcessInfo] = []
    cluster: list[ClusterEvent] = []
    #: Attempts that have ended and are in no event.
    unnamed: int = 0
    #: Events that were dropped by a process, or the node.
    lost: int = 0


class NodeLoad(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """What a node is busy with, told every ``LOAD_S`` seconds while somebody listens; one that is lost does not come
    again. Bytes, where not said otherwise."""

    node_id: bytes
    #: Of all CPUs of its machine.
    cpu_percent: float
    cpus: int
    memory_used: int
    memory: int
    store_used: int
    store: int
    #: Leases that owners hold, and such as they wait for.
    running: int
    waiting: int


class Listening(msgspec.Struct, array_like=True, gc=False):
    """By node: incarnation, and the last number before the first that is missing."""

    seen: dict[bytes, tuple[int, int]]


encode = msgspec.msgpack.Encoder().encode
decode_report = msgspec.msgpack.Decoder(NodeReport).decode
decode_load = msgspec.msgpack.Decoder(NodeLoad).decode
decode_listening = msgspec.msgpack.Decoder(Listening).decode
decode_event = msgspec.msgpack.Decoder(ClusterEvent).decode
