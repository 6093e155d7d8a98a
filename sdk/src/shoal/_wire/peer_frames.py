"""Messages between drivers and workers: task pushes and replies, values, borrowing. Tags from 100."""

from __future__ import annotations

import msgspec

from shoal_common.channel.frames import Message, WorkerAddress
from shoal_common.events.task_events import Failure


class RefWire(msgspec.Struct, array_like=True, frozen=True, gc=False):
    object_id: bytes
    owner: WorkerAddress


class Value(msgspec.Struct, array_like=True, gc=False):
    """One object's value, or where it lies."""

    #: See ``value_kinds``.
    kind: int
    payload: bytes = b""
    size: int = 0
    node_id: bytes = b""
    #: References inside the value; the receiver is registered as their borrower already.
    contained: list[RefWire] | None = None


class Argument(msgspec.Struct, array_like=True, gc=False):
    """A top-level ``ObjectRef`` argument, resolved: position (or keyword) and value."""

    position: int
    keyword: str
    object_id: bytes
    owner: WorkerAddress
    value: Value


#: ``TaskPush.num_returns`` of a generator whose items are streamed.
STREAMING = -1

#: Every actor has this concurrency group (Ray's name) for what serves the actor itself and not its callers: calls in
#: threads of their own, beside all others and in no order.
SYSTEM_GROUP = "_ray_system"


class TimeLeft(msgspec.Struct, array_like=True, gc=False):
    """Of a task or call with a ``timeout_s``. In seconds: clocks of machines differ."""

    timeout_s: float
    #: At the moment when it is sent.
    left_s: float


class TaskPush(msgspec.Struct, array_like=True, gc=False):
    """One task or actor call, ready to run."""

    task_id: bytes
    #: Function table key; empty for an actor call.
    function_id: bytes
    #: Function name, or the actor's method.
    name: str
    #: Pickle of ``(args, kwargs)``, or empty when there are none or they lie in the store.
    args: bytes
    #: Out-of-band buffers of that pickle.
    buffers: list[bytes] | None = None
    #: Return values to expect, or ``STREAMING``.
    num_returns: int = 1
    refs: list[Argument] | None = None
    #: Large arguments: the object that holds them.
    args_object: bytes = b""
    #: Actor calls: position in this caller's order.
    sequence: int = 0
    attempt: int = 0
    #: ``False``, ``True`` or the pickle of a tuple of exception classes; evaluated by the worker.
    retry_exceptions: bool | bytes = False
    concurrency_group: str = ""
    #: Workers exit after so many runs of the function; 0 = never.
    max_calls: int = 0
    #: Actor calls: what the option ``name`` calls this one; empty = as its class and method.
    task_name: str = ""
    #: None = all the time it needs.
    time_left: TimeLeft | None = None
    #: Of a generator: it pauses while so many items are unread; 0 = it does not.
    backpressure: int = 0
    #: The trace that it belongs to, as OpenTelemetry's headers.
    trace: dict[str, str] | None = None
    #: Nothing is told of it (``enable_task_events=False``).
    untold: bool = False


class LostArgument(msgspec.Struct, array_like=True, gc=False):
    """An argument's object that is not to be had from ``home``, where the owner of the call said it lies."""

    object_id: bytes
    home: bytes
    #: For humans.
    how: str


class TaskReply(msgspec.Struct, array_like=True, gc=False):
    task_id: bytes
    #: Run time in microseconds.
    duration_us: int
    #: For exactly one return: its kind and payload; else kind 0 and ``values``.
    kind: int
    payload: bytes
    values: list[Value] | None = None
    #: Ids of the receiver's objects that the worker goes on holding.
    borrowed: list[bytes] | None = None
    #: The exception matches ``retry_exceptions``: the owner may run the task again.
    retriable: bool = False
    #: The task has not begun, as these could not be loaded.
    lost: list[LostArgument] | None = None
    #: Of a generator: so many items it has yielded, before the error if it is one; -1 = it did not get so far, or was
    #: stopped from outside.
    items: int = -1
    #: Why it has no value, or not all of them.
    failure: Failure | None = None


class PushTasks(Message, tag=100):
    tasks: list[TaskPush]
    #: To a durable actor: the caller has the answers of all its calls up to this ``sequence``.
    answered: int = 0


class TaskReplies(Message, tag=101):
    replies: list[TaskReply]


class TaskYields(Message, tag=118):
    """Worker -> owner: items of a generator that runs, one after the other."""

    task_id: bytes
    attempt: int
    #: Number of the first of them, from 0.
    first: int
    values: list[Value]


class ItemsRead(Message, tag=119):
    """Owner -> worker: so many items of a generator with ``backpressure`` have been read."""

    task_id: bytes
    count: int


class Recall(Message, tag=102):
    """Owner -> worker: hand back up to ``count`` tasks that have not begun, the last first."""

    count: int


class Recalled(Message, tag=103):
    """Worker -> owner: these have not begun and will not. ``blocked``: the worker waits in ``get``. ``leaving``: it
    ends after what it runs now (``max_calls``), and takes nothing more."""

    task_ids: list[bytes]
    blocked: bool = False
    leaving: bool = False


class StopTasks(Message, tag=110):
    """Owner -> worker: nobody waits for these any more. They do not begin, or are unwound where that can be done; each
    is answered all the same."""

    task_ids: list[bytes]


class CancelTask(Message, tag=116):
    """Owner -> worker: this task or call is cancelled. It does not begin, or is interrupted or told so, and is
    answered all the same."""

    task_id: bytes
    #: A task that runs takes its worker along.
    force: bool = False
    #: What it has submitted is cancelled too.
    recursive: bool = True
    #: A generator of which nobody wants more: it is closed where it yields next.
    closing: bool = False


class CancelObject(Message, tag=117):
    """Borrower -> owner: the task that makes this object is cancelled."""

    object_id: bytes
    force: bool
    recursive: bool


class GetValue(Message, tag=104):
    """Borrower -> owner: answer with the value as soon as there is one."""

    object_id: bytes


class ValueReady(Message, tag=105):
    object_id: bytes
    value: Value


class ValuePending(Message, tag=109):
    """Owner -> borrower: asked for the value, there is none yet. ``ValueReady`` follows when there is."""

    object_id: bytes


class ValueLost(Message, tag=115):
    """Borrower -> owner: the object is not to be had from ``home``, where it should have been (``how``: for humans).
    Answered as ``GetValue``."""

    object_id: bytes
    home: bytes
    how: str


class AddBorrower(Message, tag=106):
    """-> owner: ``borrower`` holds these objects. Answered by ``BorrowerAdded``."""

    request: int
    object_ids: list[bytes]
    borrower: WorkerAddress


class BorrowerAdded(Message, tag=107):
    request: int


class RemoveBorrower(Message, tag=108):
    """Borrower -> owner: gone here. ``counts``: as often as it had been added, so that an addition under way
    on somebody else's word is not undone."""

    object_ids: list[bytes]
    counts: list[int]


class WaitReport(msgspec.Struct, array_like=True, gc=False):
    """What an object waits for, as its owner knows; or a task or call, as the process knows that was sent it."""

    #: One of the words of ``_core.waits``.
    state: str
    #: Function, or class and method; empty = it is no task's.
    name: str = ""
    #: For humans: what else is known.
    detail: str = ""
    #: The task that makes the object.
    task_id: bytes = b""
    #: Who was sent that task, and knows more about it.
    at: WorkerAddress | None = None
    #: A call that waits for its actor: the constructor, which runs there and must end first.
    constructor: bytes = b""
    pid: int = 0
    #: In this state, in seconds; negative = not known.
    for_s: float = -1.0
    #: Number of the wait in that process, when it waits in ``get`` or ``wait``.
    wait: int = 0
    #: It waits for these: each of them, or (``certain`` is False) perhaps for only some.
    objects: list[RefWire] = []
    #: It waits until one of these tasks has ended, which run in the same process.
    behind: list[bytes] = []
    #: Nothing else ends its waiting, as a timeout does.
    certain: bool = True


class AskWait(Message, tag=111):
    """Process -> process: what does this object, or this task, wait for? Answered by ``TellWait``."""

    request: int
    #: One that the asked process owns; empty: it is asked for a task.
    object_id: bytes
    #: One that it was sent.
    task_id: bytes = b""


class TellWait(Message, tag=112):
    request: int
    report: WaitReport


class LookForDeadlock(Message, tag=113):
    """Process -> process: your wait ``wait`` seems to be part of a cycle. See whether it is, and end it then."""

    wait: int


class DebugAttach(Message, tag=120):
    """Terminal -> worker: talk to me about this breakpoint. Answered by ``DebugOutput``."""

    breakpoint: str


class DebugInput(Message, tag=121):
    """Terminal -> worker: a line, with its newline, was typed at a breakpoint."""

    breakpoint: str
    line: str


class DebugOutput(Message, tag=122):
    """Worker -> terminal: what its debugger says. ``ended``: the conversation is over."""

    breakpoint: str
    text: str
    ended: bool = False


PeerMessage = (
    PushTasks
    | TaskReplies
    | TaskYields
    | ItemsRead
    | Recall
    | Recalled
    | StopTasks
    | CancelTask
    | CancelObject
    | GetValue
    | ValuePending
    | ValueReady
    | ValueLost
    | AddBorrower
    | BorrowerAdded
    | RemoveBorrower
    | AskWait
    | TellWait
    | LookForDeadlock
    | DebugAttach
    | DebugInput
    | DebugOutput
)
