"""Every message of the framed channel, which carries what happens once per call or per object.

How they become bytes is in ``codec``. Payloads (pickled arguments, results) are opaque ``bytes``: nobody but the
process that runs the task or asked for the value unpickles them.

Worker leases go this way too, and not over gRPC: each process holds this channel to its raylet for the object
store anyway, its end is the owner's end, which revokes the leases, and no worker pays 0.14 s and a dozen threads
for a gRPC channel before it can submit its first nested task.
"""

from __future__ import annotations

import struct
from typing import Literal

import msgspec

from shoal_common.events.task_events import FunctionTally
from shoal_common.kinds import BlobErrorKind, ExitKind, RefusalKind, StoreErrorKind

PROTOCOL_VERSION = 8


class WorkerAddress(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a driver or worker listens for its peers."""

    node_id: bytes
    worker_id: bytes
    #: Unix socket, used by peers on the same node.
    path: str
    #: TCP address for peers on other nodes; port 0 = not reachable from other nodes.
    host: str = ""
    port: int = 0


class Message(msgspec.Struct, array_like=True, gc=False):
    """Base of all messages. ``gc=False``: a message never holds a reference cycle."""


# --- handshake (shoal_common.channel.handshake) ------------------------------------------------------------


class Hello(Message, tag=1):
    """First frame of the side that connects."""

    version: int
    nonce: bytes
    #: "driver" or "worker": a process of this node. "owner": one of another node, which leases workers here or owns
    #: objects that lie here; its connection is its life. "raylet": another node's, for objects; it may open several.
    role: str
    node_id: bytes
    worker_id: bytes
    job_id: bytes
    pid: int
    #: "3.11": functions travel as bytecode, so the minor versions must agree.
    python: str
    address: WorkerAddress | None = None


class HelloReply(Message, tag=2):
    """The accepting side proves that it has the token and challenges back."""

    nonce: bytes
    proof: bytes
    node_id: bytes
    worker_id: bytes
    #: Non-empty when refused; the connection closes after it.
    error: str = ""
    #: Bytes of the arena whose descriptor follows as ancillary data; 0 = none follows.
    arena_size: int = 0


class HelloProof(Message, tag=3):
    """The connecting side's proof; ordinary frames may follow at once."""

    proof: bytes


# --- worker leases: owner <-> raylet ---------------------------------------------------------------


class SchedulingClass(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a worker lease needs; leases are reused within one class."""

    #: Function or class name, for messages and process titles.
    name: str
    #: Resource amounts in grains (1/10,000 unit), sorted by name.
    resources: tuple[tuple[str, int], ...]
    #: As ``shoal_common.placement.strategy`` writes it: "" = DEFAULT, "SPREAD", "node:<hex>", "node?:<hex>" (soft),
    #: "group:<hex>", each with label selectors after a ";", alternatives between "|", rules between "&":
    #: "SPREAD;zone=in(a,b)&!spot|zone=c".
    strategy: str = ""
    #: Document of the runtime environment (``shoal_common.placement.runtime_env``); "" = none.
    runtime_env: str = ""
    #: A worker that grows beyond the ``memory`` among the resources is killed.
    enforce_memory: bool = False
    #: Its tasks have retries: where memory is short, they go first.
    retriable: bool = True
    #: Within the job, those with a higher one come first.
    priority: int = 0
    #: Of the job: its share next to those of others.
    weight: float = 1.0
    #: Of the job: what it may hold at once over the whole cluster, in grains, sorted by name; () = as much as there is.
    quota: tuple[tuple[str, int], ...] = ()


class LeaseDemand(Message, tag=10):
    """Owner -> raylet: the number of leases wanted for a class since the connection began.

    Cumulative, so that a grant under way cannot be counted twice: the raylet still owes
    ``max(0, total - granted)``. A smaller total than before cancels what is not granted yet.
    """

    class_key: int
    total: int
    #: Sent with the first demand of a class, None afterwards.
    spec: SchedulingClass | None = None
    #: A scheduler chose this node (``LeaseSpillback``) for what is new in it: that queues here.
    placed: bool = False
    #: Bytes of the next tasks' large arguments, by the node that holds them; None = nothing worth a thought.
    argument_bytes: dict[bytes, int] | None = None
    #: Mean run time of its next tasks in microseconds; 0 = not known (yet).
    mean_task_us: int = 0


class LeaseGranted(Message, tag=11):
    """Raylet -> owner."""

    class_key: int
    lease_id: bytes
    worker: WorkerAddress
    pid: int


class LeaseReturned(Message, tag=12):
    """Owner -> raylet. ``worker_exits``: the worker is going away by itself (``max_calls``, exit_actor)."""

    lease_id: bytes
    worker_exits: bool = False


class LeaseLost(Message, tag=13):
    """Raylet -> owner: the leased worker died."""

    lease_id: bytes
    kind: ExitKind
    #: For humans: "killed by SIGKILL", "exit code 3", "node memory 96 % used, this worker grew to 3.1 GiB".
    detail: str
    #: Its placement group does not exist any more.
    group_removed: bool = False
    #: NODE_OUT_OF_MEMORY: others of its node's workers had filled the memory too.
    shared_blame: bool = False


class LeaseRefused(Message, tag=14):
    """Raylet -> owner: no node can ever satisfy this class; its queued tasks fail with ``reason``."""

    class_key: int
    kind: RefusalKind
    reason: str


class LeaseReclaim(Message, tag=15):
    """Raylet -> owner: others wait; return this lease when the tasks already pushed are done."""

    lease_id: bytes
    #: When the one that runs is done; the others come back.
    at_once: bool = False


class LeaseKill(Message, tag=32):
    """Owner -> raylet: kill the leased worker, whose task does not end; ``LeaseLost`` follows."""

    lease_id: bytes
    #: For humans.
    reason: str


class LeaseAssigned(Message, tag=16):
    """Raylet -> worker: what the coming tasks may use."""

    lease_id: bytes
    job_id: bytes
    resources: tuple[tuple[str, int], ...]
    #: Granted device ids by resource name, e.g. {"GPU": ["0"]}.
    devices: dict[str, list[str]]
    #: As in SchedulingClass: it names the placement group.
    strategy: str = ""
    #: Of what runs with the lease.
    priority: int = 0


class Blocked(Message, tag=17):
    """Worker -> raylet: this worker waits in ``get`` or ``wait``; its CPU may be lent."""


class Unblocked(Message, tag=18):
    """Worker -> raylet: it runs again and takes its CPU back at once, if need be on credit."""


class LeaseSpillback(Message, tag=19):
    """Raylet -> owner: ask another node for ``count`` of the leases that are owed; here they count as granted."""

    class_key: int
    count: int
    node_id: bytes
    #: TCP address of that raylet's framed channel.
    host: str
    port: int


class WorkerExit(Message, tag=20):
    """Raylet -> worker: end. Graceful: finish the calls that have arrived, run exit hooks.

    A worker that owns objects or actors, which would end with it, stays until nobody needs them.
    """

    graceful: bool
    reason: str


class ExitIntent(Message, tag=21):
    """Worker or driver -> raylet, just before it leaves by itself: why, so that it does not count as a crash."""

    kind: ExitKind
    detail: str


class CreateActor(Message, tag=22):
    """Raylet -> worker: become this actor. ``spec`` is the GCS's ``ActorSpec.creation`` payload."""

    actor_id: bytes
    incarnation: int
    spec: bytes
    resources: tuple[tuple[str, int], ...]
    devices: dict[str, list[str]]
    #: As in SchedulingClass: it names the placement group.
    strategy: str = ""
    #: It keeps checkpoints: an earlier incarnation may have left some.
    checkpoints: bool = False


class ActorCreated(Message, tag=23):
    """Worker -> raylet: the constructor returned, or raised (``error`` = the serialized exception)."""

    actor_id: bytes
    incarnation: int
    error: bytes = b""


class FunctionGet(Message, tag=24):
    """Process -> raylet: fetch from the GCS function table (cached by the raylet)."""

    request: int
    function_id: bytes


class FunctionData(Message, tag=25):
    """Raylet -> process. ``error`` non-empty: not found, or the GCS did not answer in time."""

    request: int
    data: bytes
    error: str = ""


class LastRepliesGet(Message, tag=95):
    """Process -> raylet: what a worker of that node held back when it died, or when the connection to it was lost."""

    worker_id: bytes


class LastRepliesFound(Message, tag=96):
    """Raylet -> process: for all of its callers, as in ``shoal._net.last_replies``; empty = there is nothing."""

    worker_id: bytes
    data: bytes


class FlushLogs(Message, tag=26):
    """Process -> raylet: publish what the workers have printed so far, then answer."""

    request: int


class LogsFlushed(Message, tag=27):
    request: int


class NodeFind(Message, tag=28):
    """Process -> raylet: where is that node's raylet?"""

    request: int
    node_id: bytes


class NodeFound(Message, tag=29):
    """TCP address of its framed channel; port 0 = it is not in the cluster (any more)."""

    request: int
    host: str
    port: int


class NodeLost(Message, tag=30):
    """Raylet -> process: this node was declared dead: leases and objects there are lost, whoever seems to answer."""

    node_id: bytes
    #: For humans: how it was found dead.
    reason: str


class NodeDrains(Message, tag=144):
    """Raylet -> process: this node takes nothing new and is going to leave the cluster."""

    #: It will have left by then; 0 = nobody has said.
    deadline_unix_ms: int


class CollectGarbage(Message, tag=31):
    """Raylet -> process: something in the cluster waits for what only actors hold. A handle that nobody can reach any
    more, in a cycle of references, may be what keeps one of them alive."""


class Explain(Message, tag=33):
    """Process -> raylet: what does this wait for here? One of the three is given."""

    request: int
    #: Leases of this process; -1 = it is asked for something else.
    class_key: int = -1
    object_id: bytes = b""
    #: Of an actor that is being created.
    actor_id: bytes = b""


class Explained(Message, tag=34):
    request: int
    #: For humans.
    text: str
    #: Where the actor's constructor runs; None: nowhere yet.
    worker: WorkerAddress | None = None


class WaitsGet(Message, tag=37):
    """Raylet -> process: what does this object of yours wait for? Everybody answers."""

    request: int
    #: Empty = all that your threads wait for.
    object_id: bytes = b""


class WaitsTold(Message, tag=38):
    request: int
    #: False = this process does not own it.
    known: bool = True
    #: For humans; empty = it waits for nothing.
    text: str = ""


class ProfileMemory(Message, tag=39):
    """Raylet -> process: what allocates memory here? For whole ``seconds``, from now on."""

    request: int
    seconds: int
    #: Frames of C and C++, too.
    native: bool = False
    #: What is not freed at the end; otherwise what there was at the highest point.
    leaks: bool = False


class MemoryProfiled(Message, tag=54):
    request: int
    #: A line for each: ``outermost;...;innermost bytes``.
    stacks: bytes = b""
    #: Why there are none, and what to do about it; empty = there are.
    error: str = ""


# --- local object store: process <-> raylet --------------------------------------------------------


class ObjectCreate(Message, tag=40):
    """Process -> raylet: room for an object. The answer may wait while others are spilled."""

    request: int
    object_id: bytes
    size: int
    #: Worker id of the owner: its death deletes the object.
    owner: bytes


class StoreError(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the object store tells a process that asked in vain."""

    kind: StoreErrorKind
    #: For humans.
    text: str


class ObjectCreated(Message, tag=41):
    request: int
    offset: int
    error: StoreError | None = None
    #: Non-empty: the bytes are not in the arena but in this file, of which they are all.
    path: str = ""


class ObjectSeal(Message, tag=42):
    """Process -> raylet: written; from now on readable, and kept until its owner frees it."""

    object_id: bytes


class ObjectAbort(Message, tag=43):
    """Process -> raylet: the object was created but will not be sealed."""

    object_id: bytes


class PieceGet(Message, tag=51):
    """Process -> raylet: a piece of the arena for objects to come, answered at once by ``ObjectCreated``; 0 bytes are
    always refused, and tell by that that the raylet has read what came before."""

    request: int
    size: int


class ObjectPlaced(Message, tag=52):
    """Process -> raylet: an object has been written in a piece; as ``ObjectCreate`` and ``ObjectSeal`` in one."""

    object_id: bytes
    offset: int
    size: int
    owner: bytes


class PieceReturned(Message, tag=53):
    """Process -> raylet: these bytes of a piece are not needed."""

    offset: int
    size: int


class ObjectGet(Message, tag=44):
    """Process -> raylet: pin the object and tell where it lies; it is restored or pulled first if need be."""

    request: int
    object_id: bytes
    #: The node on which it was made; empty = this one.
    home: bytes = b""


class ObjectGetEnd(Message, tag=50):
    """Process -> raylet: an ``ObjectGet`` has waited long enough, and is to be answered now."""

    request: int
    object_id: bytes


class ObjectLocated(Message, tag=45):
    """Raylet -> process: readable at ``offset`` until ``ObjectUnpin``. ``error``: lost, the store is full, or the
    process waits no longer."""

    request: int
    offset: int
    size: int
    error: StoreError | None = None
    #: As in ``ObjectCreated``.
    path: str = ""


class ObjectUnpin(Message, tag=46):
    """Process -> raylet: one unpin ends one ``ObjectGet``."""

    object_id: bytes


class ObjectFree(Message, tag=47):
    """Owner -> raylet: delete these, wherever they lie; bytes still pinned by readers stay until unpinned."""

    object_ids: list[bytes]
    #: Their home; empty = this node. Another node's raylet is told by this one; where that is dead, the GCS.
    home: bytes = b""


class ObjectUncache(Message, tag=48):
    """Raylet -> process: unpin these as soon as no value uses them (they were freed, or room is needed). None: others
    need room, and pieces are to be returned."""

    object_ids: list[bytes]


class ObjectPrefetch(Message, tag=49):
    """Process -> raylet: these will be asked for soon; begin to pull them. No answer."""

    #: (object id, home node id)
    objects: list[tuple[bytes, bytes]]


# --- objects between nodes: raylet <-> raylet -------------------------------------------------------


class ObjectLocate(Message, tag=60):
    """Asking raylet -> the object's home: from whom can it be had? The asker is noted as a coming source itself."""

    request: int
    object_id: bytes
    #: Nodes that did not have it, or did not deliver.
    without: list[bytes] = []


class ObjectSources(Message, tag=61):
    """Home -> asking raylet."""

    request: int
    size: int
    owner: bytes
    #: Nodes to read it from, the least busy first. Empty with an empty ``blob_key``: the home does not have it, unless
    #: ``later``.
    sources: list[bytes]
    #: Its spilled copy, where that is the best one.
    blob_key: str = ""
    blob_offset: int = 0
    #: None of the sources but those in ``without``: ask again after a while.
    later: bool = False


class CopyMade(Message, tag=62):
    """Holder -> home: the copy is complete."""

    object_id: bytes


class CopiesGone(Message, tag=63):
    """Holder -> home: evicted, or never completed."""

    object_ids: list[bytes]


class CopiesFree(Message, tag=64):
    """Home -> holder: the owner needs them no more; drop the copies."""

    object_ids: list[bytes]


class CopiesAdopt(Message, tag=65):
    """Home -> holder: the home leaves the cluster; make these copies primary, and tell the GCS."""

    request: int
    object_ids: list[bytes]


class CopiesAdopted(Message, tag=66):
    """Holder -> home: these it had, and they are the primary copies now."""

    request: int
    object_ids: list[bytes]


class ChunkGet(Message, tag=67):
    """Asking raylet -> source: the answer is CHUNK_HEADER and the bytes. The object stays pinned until ``ChunksEnd``.

    A source that is getting the bytes itself answers when it has them.
    """

    request: int
    object_id: bytes
    offset: int
    length: int


class ChunksEnd(Message, tag=68):
    """Asking raylet -> source: no more of this object; what was asked for and not begun is not sent any more."""

    object_id: bytes


#: What precedes the raw bytes of a chunk: the ``ChunkGet``'s request and the number of bytes that follow; 0 = the
#: source does not have the object (any more).
CHUNK_HEADER = struct.Struct("<II")

# --- objects of processes without an arena: process <-> raylet ----------------------------------------


class ObjectWrite(Message, tag=70):
    """Process -> raylet: a part of an object that it has created."""

    request: int
    object_id: bytes
    offset: int
    data: memoryview


class ObjectWritten(Message, tag=71):
    request: int
    error: StoreError | None = None


class ObjectRead(Message, tag=72):
    """Process -> raylet: a part of an object that ``ObjectGet`` has pinned."""

    request: int
    object_id: bytes
    offset: int
    length: int


class ObjectPart(Message, tag=73):
    request: int
    data: memoryview
    error: StoreError | None = None


# --- what an actor stores for its next process: worker -> raylet ----------------------------------------


class CheckpointPut(Message, tag=90):
    """Store a blob of this worker's actor, under a name of its own choice; it replaces one of the same name."""

    request: int
    name: str
    data: bytes
    #: Answer with the names that begin with this, as they are after the blob is stored; None = with none.
    then_list: str | None = None


class CheckpointGet(Message, tag=91):
    request: int
    name: str


class CheckpointList(Message, tag=92):
    request: int
    prefix: str = ""


class CheckpointDelete(Message, tag=93):
    """Those that are not there are deleted already."""

    request: int
    names: list[str]


class CheckpointDone(Message, tag=94):
    """Raylet -> worker: the answer to each of them."""

    request: int
    #: None = it is done.
    error: BlobErrorKind | None = None
    #: What is wrong, for humans.
    detail: str = ""
    data: bytes = b""
    names: list[str] = []


# --- packages of runtime environments: process -> raylet ------------------------------------------------


class PackageFind(Message, tag=140):
    """Whether a package is stored."""

    request: int
    #: SHA-256 of its bytes, in hexadecimal.
    digest: str


class PackagePut(Message, tag=141):
    """Store a part of a package; the last is its size."""

    request: int
    digest: str
    #: From 0; -1 = its size, in decimal digits: all of it is there.
    part: int
    data: bytes


class PackageDone(Message, tag=142):
    """Raylet -> process: the answer to either."""

    request: int
    found: bool = False
    #: What is wrong, for humans; empty = nothing.
    error: str = ""


# --- values of named objects: process -> raylet ---------------------------------------------------------


class NamedObjectPut(Message, tag=160):
    """Store a part of a value."""

    request: int
    #: As in ``shoal_common.named_objects``.
    place: str
    part: int
    data: bytes


class NamedObjectGet(Message, tag=161):
    """Read a part of a value."""

    request: int
    place: str
    part: int


class NamedObjectDone(Message, tag=162):
    """Raylet -> process: the answer to either."""

    request: int
    #: None = it is done.
    error: BlobErrorKind | None = None
    #: What is wrong, for humans.
    detail: str = ""
    data: bytes = b""


class EnvironmentPrepare(Message, tag=143):
    """Driver -> raylet: its job's runtime environment, which its first tasks will want."""

    #: As ``SchedulingClass.runtime_env``.
    runtime_env: str


# --- what a process counts: process -> raylet -----------------------------------------------------------


class MetricGrowth(msgspec.Struct, array_like=True, gc=False):
    """Of one series of a metric, since the last report: see ``service.metrics``."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    description: str
    boundaries: tuple[float, ...]
    labels: tuple[tuple[str, str], ...]
    value: float
    counts: list[int]


class MetricsReport(Message, tag=130):
    """Process -> raylet: what has changed since its last report."""

    series: list[MetricGrowth]


# --- what a process tells of its tasks: process -> raylet ------------------------------------------------


class TaskReport(Message, tag=150):
    """Process -> raylet: what has happened to its tasks since its last report (``shoal_common.events.task_events``)."""

    #: Those that have changed, in full.
    tallies: list[FunctionTally]
    #: ``encode_events`` of some; the raylet hands it on as it is.
    events: bytes
    count: int
    #: Since the last report: attempts that have ended and are in no event, as nothing was special about them.
    unnamed: int
    #: And events that were lost because there were too many.
    lost: int


class FlushEvents(Message, tag=151):
    """Process -> raylet: report to the cluster what you were told of tasks until now, and answer with where it is."""

    request: int


class EventsFlushed(Message, tag=152):
    """It is in the node's reports up to that number; whoever listens gets them next."""

    request: int
    incarnation: int
    number: int


RayletMessage = (
    LeaseDemand
    | LeaseGranted
    | LeaseSpillback
    | LeaseReturned
    | LeaseLost
    | LeaseRefused
    | LeaseReclaim
    | LeaseKill
    | LeaseAssigned
    | Blocked
    | Unblocked
    | WorkerExit
    | ExitIntent
    | CreateActor
    | ActorCreated
    | FunctionGet
    | FunctionData
    | LastRepliesGet
    | LastRepliesFound
    | FlushLogs
    | LogsFlushed
    | NodeFind
    | NodeFound
    | NodeLost
    | CollectGarbage
    | NodeDrains
    | Explain
    | Explained
    | WaitsGet
    | WaitsTold
    | ProfileMemory
    | MemoryProfiled
    | ObjectCreate
    | ObjectCreated
    | ObjectSeal
    | ObjectAbort
    | PieceGet
    | ObjectPlaced
    | PieceReturned
    | ObjectGet
    | ObjectGetEnd
    | ObjectLocated
    | ObjectUnpin
    | ObjectFree
    | ObjectUncache
    | ObjectPrefetch
    | ObjectLocate
    | ObjectSources
    | CopyMade
    | CopiesGone
    | CopiesFree
    | CopiesAdopt
    | CopiesAdopted
    | ChunkGet
    | ChunksEnd
    | ObjectWrite
    | ObjectWritten
    | ObjectRead
    | ObjectPart
    | CheckpointPut
    | CheckpointGet
    | CheckpointList
    | CheckpointDelete
    | CheckpointDone
    | PackageFind
    | PackagePut
    | PackageDone
    | NamedObjectPut
    | NamedObjectGet
    | NamedObjectDone
    | EnvironmentPrepare
    | MetricsReport
    | TaskReport
    | FlushEvents
    | EventsFlushed
)
