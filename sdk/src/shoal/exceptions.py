"""Every error that Shoal raises to its users.

=====================================  =========================================================================
family                                 meaning
=====================================  =========================================================================
``TaskError``                          the user's own code raised; caught by the class that it raised
``WorkerCrashedError``,                the process, or the machine under it, died while the task ran
``NodeDiedError``, ``OutOfMemoryError``
``ActorError``                         ``ActorDiedError``: for good; ``ActorUnavailableError``: for the moment
``CheckpointError``                    an actor's state was not stored, or cannot be restored
``JobInUseError``,                     a named job has a driver already; what it keeps under names
``NamedObjectError``
``ObjectLostError``                    the value cannot be had any more; its subclasses say why
``ObjectStoreFullError``,              there is no room for a value
``OutOfDiskError``
``…UnschedulableError``                no node can run it
=====================================  =========================================================================

All of them cross processes, so all of them can be pickled with their attributes, whatever arguments their
constructors take (``shoal._values.task_error`` sees to it, and to the user's own exceptions). They hold data; ``str()``
builds the message and ends it with what to do.
The names that Ray gives these classes are aliases here, so ``import shoal as ray`` keeps ``except`` clauses working.
"""

from __future__ import annotations

from typing import ClassVar

from shoal._core.public_ids import ActorID as ActorID
from shoal._core.public_ids import TaskID as TaskID
from shoal._core.public_ids import WorkerID as WorkerID
from shoal._values.task_error import ShoalError as ShoalError
from shoal._values.task_error import TaskError as TaskError
from shoal._values.task_error import UnserializableException as UnserializableException

# --- the user's code raised ------------------------------------------------------------------------


class UserCodeException(ShoalError):
    """Libraries wrap the exceptions of callbacks in it; ``retry_exceptions`` looks at its ``__cause__``."""


class CrossLanguageError(ShoalError):
    """Code in another language raised."""

    def __init__(self, language: str, formatted_exception: str) -> None:
        super().__init__(language, formatted_exception)
        self.language = language
        self.formatted_exception = formatted_exception

    def _message(self) -> str:
        return f"An exception raised from {self.language}:\n{self.formatted_exception}"


class TaskCancelledError(ShoalError):
    """The task was cancelled before it finished. ``task_id`` is hex."""

    def __init__(self, task_id: str | None = None, error_message: str | None = None) -> None:
        super().__init__(task_id, error_message)
        self.task_id = task_id
        self.error_message = error_message

    def _message(self) -> str:
        which = f"Task: {self.task_id} was cancelled." if self.task_id else "The task was cancelled."
        return " ".join(part for part in (which, self.error_message) if part)


class TaskTimeoutError(ShoalError, TimeoutError):
    """The task or actor call had not ended ``timeout_s`` seconds after it was submitted. ``task_id`` is hex.

    ``where`` says how far it had come: "waiting for its arguments", "waiting for a worker", "waiting for its actor",
    "queued behind others" or "running". It does not begin any more, or is stopped; only what runs in a thread of an
    actor goes on there.
    """

    remedy = (
        "Raise timeout_s, or see what takes so long; with retry_exceptions=[TaskTimeoutError] what ran is repeated."
    )

    def __init__(self, task_name: str, task_id: str, timeout_s: float, where: str) -> None:
        super().__init__(task_name, task_id, timeout_s, where)
        self.task_name = task_name
        self.task_id = task_id
        self.timeout_s = timeout_s
        self.where = where

    def _message(self) -> str:
        return (
            f"{self.task_name} ({self.task_id}) had not ended after timeout_s={self.timeout_s:g}: it was {self.where}."
        )


class DeadlockError(ShoalError):
    """Tasks and actor calls wait for each other's results in a circle, so that none can ever end.

    Raised in the ``get`` that has closed the circle. ``cycle`` says how each of them waits for the next one, the last
    for the first.
    """

    remedy = (
        "Let one of them return without waiting (hand the ref on instead of calling get), make its method async and "
        "await, or give the actor a larger max_concurrency."
    )

    def __init__(self, cycle: tuple[str, ...]) -> None:
        super().__init__(cycle)
        self.cycle = tuple(cycle)

    def _message(self) -> str:
        return f"These wait for each other: {'; '.join(self.cycle)}."


# --- something under the user's code died ------------------------------------------------------------


class WorkerCrashedError(ShoalError):
    """The worker process died while it ran the task, more often than ``max_retries`` allows.

    ``reason`` says how, e.g. "killed by SIGKILL" or "exit code 3".
    """

    remedy = "Look at the worker's output above for the cause; raise max_retries if the task may run again."

    def __init__(self, reason: str = "", *, task_name: str = "", pid: int = 0, node_id: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.task_name = task_name
        self.pid = pid
        self.node_id = node_id

    def _message(self) -> str:
        what = "The worker died unexpectedly while executing this task"
        where = ", ".join(
            f"{label} {value}"
            for label, value in (("task", self.task_name), ("pid", self.pid), ("node", self.node_id))
            if value
        )
        return f"{what}{f' ({where})' if where else ''}{f': {self.reason}' if self.reason else ''}."


class LocalRayletDiedError(ShoalError):
    """The raylet of this process's own node died."""

    remedy = "Its log, raylet.log in the session directory, tells why; call shoal.init() again afterwards."

    def _message(self) -> str:
        return super()._message() or "The task's local raylet died."


class GatewayLostError(LocalRayletDiedError, ConnectionError):
    """This driver's session with the gateway of its cluster is over, and its job with it.

    ``job`` is the name that its driver gave it, "" = none: what is kept of such a job is found again.
    """

    remedy = "Refs and handles of this session stay invalid."

    def __init__(self, address: str, reason: str, job: str = "") -> None:
        super().__init__(address, reason, job)
        self.address = address
        self.reason = reason
        self.job = job

    def _message(self) -> str:
        if self.job:
            ahead = (
                f"Call shoal.shutdown(), then shoal.init(..., job={self.job!r}, attach=True) through this gateway or "
                "another one of the cluster, here or in a new process: it finds the job's named actors, and values "
                "under names and keys."
            )
        else:
            ahead = (
                "Call shoal.shutdown(), then shoal.init() for a new session. Had the job a name, init(job=..., "
                "attach=True) would find its named actors again, and values under names and keys."
            )
        return f"The session with {self.address} is over: {self.reason}. {ahead}"


class NodeDiedError(ShoalError):
    """The node that ran the task died, or cannot be reached any more."""

    remedy = "Raise max_retries if the task may run again on another node."

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class OutOfMemoryError(ShoalError):
    """The worker was killed because its node ran out of memory, and no retry applies; or because it used more than its
    ``memory``, with ``enforce_memory=True``."""

    remedy = (
        "Run fewer at a time (a larger num_cpus each, or memory=<bytes>), keep less in memory, or use a larger node."
    )

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ShoalSystemError(ShoalError):
    """Shoal itself failed."""

    remedy = "The logs in the session directory tell more."

    def __init__(self, client_exc: object, traceback_str: str | None = None) -> None:
        super().__init__(client_exc, traceback_str)
        self.client_exc = client_exc
        self.traceback_str = traceback_str

    def _message(self) -> str:
        return f"System error: {self.client_exc}" + (f"\ntraceback: {self.traceback_str}" if self.traceback_str else "")


class RpcError(ShoalError):
    """A service could not be reached, or refused the call. ``rpc_code`` is the number of the gRPC status."""

    def __init__(self, message: str, rpc_code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.rpc_code = rpc_code


class AuthenticationError(ShoalError):
    """The token of this process is missing, or is not the cluster's."""

    remedy = (
        "Give this process the token that the cluster was started with: "
        "in SHOAL_AUTH_TOKEN, in a file named by SHOAL_AUTH_TOKEN_PATH, or in ~/.shoal/auth_token."
    )

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


# --- actors ------------------------------------------------------------------------------------------


class ActorError(ShoalError):
    """An actor could not finish a call. ``actor_id`` is hex."""

    def __init__(
        self,
        actor_id: str | None = None,
        error_msg: str = "The actor experienced an error before finishing this task.",
        actor_init_failed: bool = False,
        preempted: bool = False,
    ) -> None:
        super().__init__(error_msg)
        self.actor_id = actor_id
        self.error_msg = error_msg
        #: Whether it was the constructor that failed.
        self.actor_init_failed = actor_init_failed
        #: Whether its node was taken away on purpose.
        self.preempted = preempted


class ActorDiedError(ActorError):
    """The actor is dead and will not be restarted.

    ``cause`` is the ``TaskError`` of its constructor, if that is what ended it; ``reason`` tells in words
    what else did, e.g. "killed by shoal.kill()" or "its worker was killed by SIGSEGV".
    """

    def __init__(
        self,
        cause: TaskError | None = None,
        *,
        actor_id: str | None = None,
        class_name: str = "",
        name: str = "",
        namespace: str = "",
        pid: int = 0,
        ip: str = "",
        reason: str = "",
        never_started: bool = False,
        preempted: bool = False,
    ) -> None:
        facts = {
            "class_name": class_name,
            "actor_id": actor_id,
            "pid": pid,
            "name": name,
            "namespace": namespace,
            "ip": ip,
        }
        if cause is None:
            lines = ["The actor died unexpectedly before finishing this task."]
            lines += [f"\t{label}: {value}" for label, value in facts.items() if value]
            lines += [reason] if reason else []
            lines += ["The actor never ran."] if never_started else []
            lines += ["Create it again, or give it max_restarts (and its calls max_task_retries) beforehand."]
        else:
            lines = [f"The actor died because of an error raised in its creation task, {cause}"]
            actor_id = actor_id or cause.actor_id
        super().__init__(actor_id, "\n".join(lines), cause is not None, preempted)
        self.cause = cause
        self.reason = reason


class ActorUnavailableError(ActorError):
    """The actor cannot be reached now, but may be later. The call may have run, or not."""

    remedy = "Call again later, or set max_task_retries if running the call twice does no harm."

    def __init__(self, error_message: str, actor_id: bytes | str | None = None) -> None:
        hex_id = actor_id.hex() if isinstance(actor_id, bytes) else actor_id
        what = f"The actor {hex_id} is unavailable: {error_message}."
        super().__init__(hex_id, f"{what} The task may or may not have been executed on the actor.")


class CheckpointError(ShoalError):
    """A checkpoint of an actor was not stored, or what is stored cannot be used."""


class JobInUseError(ShoalError):
    """The name of the job is held by another driver, or kept for one."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def _message(self) -> str:
        return f"{self.reason[:1].upper()}{self.reason[1:]}."


class NamedObjectError(ShoalError):
    """A value was not stored under its name, or cannot be read."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def _message(self) -> str:
        return f"The object named {self.name!r}: {self.reason.rstrip('.')}."


class VersionConflictError(ShoalError):
    """Of ``shoal.util.kv``: another version is there than the writer has read. ``actual`` 0 = nothing is there."""

    remedy = "Read it again, and decide again."

    def __init__(self, key: str, expected: int, actual: int) -> None:
        super().__init__(key, expected, actual)
        self.key = key
        self.expected = expected
        self.actual = actual

    def _message(self) -> str:
        return f"{self.key!r} is at version {self.actual}, not {self.expected} as expected."


class ActorAlreadyExistsError(ValueError, ShoalError):
    """The name is taken in this namespace."""

    remedy = "Choose another name, fetch that actor with shoal.get_actor(), or pass get_if_exists=True."

    def __init__(self, error_message: str) -> None:
        super().__init__(error_message)
        self.error_message = error_message


class ActorHandleNotFoundError(ValueError, ShoalError):
    """The handle belongs to an earlier session: ``shutdown()`` ended its actor."""

    remedy = "Create the actor again after shoal.init()."

    def __init__(self, error_message: str) -> None:
        super().__init__(error_message)
        self.error_message = error_message


class ActorClassInheritanceException(TypeError):
    """A class was derived from one that already is an actor class."""


class PendingCallsLimitExceeded(ShoalError):
    """This handle has ``max_pending_calls`` calls under way already."""

    remedy = "Wait for some results before calling again, or raise max_pending_calls."


class AsyncioActorExit(ShoalError):
    """Ends an async actor's method from within; ``exit_actor()`` raises it."""


# --- objects -------------------------------------------------------------------------------------------


class GetTimeoutError(ShoalError, TimeoutError):
    """``get`` waited as long as ``timeout`` says; the tasks go on running."""


class ObjectLostError(ShoalError):
    """No copy of the object is left, and it cannot be computed again.

    ``object_ref_hex`` names it; when known, ``owner_address`` describes its owner's place, ``call_site`` the line that
    created it, and ``detail`` what has happened and what to do.
    """

    def __init__(
        self, object_ref_hex: str, owner_address: str | None = None, call_site: str = "", *, detail: str = ""
    ) -> None:
        super().__init__(object_ref_hex)
        self.object_ref_hex = object_ref_hex
        self.owner_address = owner_address
        self.call_site = call_site
        self.detail = detail

    def _message(self) -> str:
        created = f" The ObjectRef was created at: {self.call_site}." if self.call_site else ""
        return f"Failed to retrieve object {self.object_ref_hex}.{created} {self._why()}"

    def _why(self) -> str:
        return self.detail or f"All copies of {self.object_ref_hex} have been lost. Compute it again."


class OwnerDiedError(ObjectLostError):
    """The process that created the object has ended, or has been out of reach for too long, and the object is lost."""

    def _why(self) -> str:
        owner = f" ({self.owner_address})" if self.owner_address else ""
        return (
            f"The object's owner has exited or was cut off{owner}: the process that created the ObjectRef by "
            ".remote() or put(). Let a process create it that lives as long as the object is needed, such as a "
            "detached actor."
        )


class ObjectReconstructionFailedError(ObjectLostError):
    """All copies are gone and the task that made the object cannot run again.

    ``reason`` is a key of ``REASON_MESSAGES``.
    """

    REASON_MESSAGES: ClassVar[dict[str, str]] = {
        "MAX_ATTEMPTS_EXCEEDED": "Its task has used up its retries. Raise max_retries.",
        "LINEAGE_EVICTED": (
            "Its lineage has been dropped to save memory. Keep fewer objects in scope, or raise max_lineage_bytes."
        ),
        "PUT": "It was created by put(), which no task can repeat. Return the value from a task instead.",
        "RETRIES_DISABLED": "Its task has max_retries=0. Allow retries.",
        "BORROWED": "This process borrowed it, and only its owner can compute it again. Get it in the owner.",
        "REF_NOT_FOUND": "Its owner does not know it any more. This is a bug in Shoal: please report it.",
        "TASK_CANCELLED": "The task that would produce it was cancelled. Submit it again.",
        "LINEAGE_DISABLED": "Reconstruction is switched off in this cluster. Compute it again.",
    }

    def __init__(
        self,
        object_ref_hex: str,
        reason: str | None = None,
        reason_message: str | None = None,
        owner_address: str | None = None,
        call_site: str = "",
    ) -> None:
        super().__init__(object_ref_hex, owner_address, call_site)
        self.reason = reason
        self.reason_message = reason_message or self.REASON_MESSAGES.get(reason or "", "The reason is unknown.")

    def _why(self) -> str:
        return f"[{self.reason or 'UNKNOWN'}] The object cannot be reconstructed. {self.reason_message}"


class ObjectFetchTimedOutError(ObjectLostError):
    """No copy of the object could be fetched in time."""

    def _why(self) -> str:
        return self.detail or (
            f"Fetch for object {self.object_ref_hex} timed out. Check that the nodes can reach one another."
        )


class ObjectFreedError(ObjectLostError):
    """The object was freed by hand while it was still in use."""

    def _why(self) -> str:
        return "The object was freed by an explicit call. Free objects only once nobody needs them."


class ReferenceCountingAssertionError(ObjectLostError, AssertionError):
    """The object was deleted although a reference to it existed."""

    def _why(self) -> str:
        return "It was deleted while a reference existed. This is a bug in Shoal: please report it."


class ObjectStoreFullError(ShoalError):
    """Neither shared memory nor the place to spill to has room for the object."""

    remedy = (
        "The local object store is full of objects that are still in scope and cannot be evicted or spilled: "
        "drop references and arrays that view them, or start with a larger object_store_memory."
    )


class OutOfDiskError(ShoalError):
    """The object store is full, and so is the disk that it spills to."""

    remedy = "Free space on the disk, or spill to another one (object_spilling_directory)."


class OufOfBandObjectRefSerializationException(ShoalError):  # the spelling is part of the API
    """An ``ObjectRef`` was pickled outside of Shoal's own messages, where nobody can count it."""

    remedy = "Pass the ObjectRef as an argument, or return it."


class PlasmaObjectNotAvailable(ShoalError):
    """The object is not in the local object store yet."""


class ObjectRefStreamEndOfStreamError(ShoalError):
    """A streaming generator has no more objects."""


# --- scheduling ----------------------------------------------------------------------------------------


class TaskUnschedulableError(ShoalError):
    """No node can ever run the task: what it asks for does not exist, or its node is dead."""

    def __init__(self, error_message: str) -> None:
        super().__init__(error_message)
        self.error_message = error_message

    def _message(self) -> str:
        return f"The task is not schedulable: {self.error_message}"


class ActorUnschedulableError(ShoalError):
    """No node can ever host the actor: what it asks for does not exist, or its node is dead."""

    def __init__(self, error_message: str) -> None:
        super().__init__(error_message)
        self.error_message = error_message

    def _message(self) -> str:
        return f"The actor is not schedulable: {self.error_message}"


class TaskPlacementGroupRemoved(ShoalError):
    """The placement group of the task was removed while it waited or ran."""

    def _message(self) -> str:
        what = "The placement group corresponding to this task has been removed."
        return " ".join([what, *map(str, self.args)])


class ActorPlacementGroupRemoved(ActorUnschedulableError):
    """The placement group of the actor was removed before the actor had started, or could restart."""

    def __init__(
        self, error_message: str = "The placement group corresponding to this Actor has been removed."
    ) -> None:
        super().__init__(error_message)


class RuntimeEnvSetupError(ShoalError):
    """The runtime environment of a task, actor or job could not be made."""

    def __init__(self, error_message: str | None = None) -> None:
        super().__init__(error_message)
        self.error_message = error_message

    def _message(self) -> str:
        return "\n".join(part for part in ("Failed to set up runtime environment.", self.error_message) if part)


# --- compiled graphs, streams, device transport ----------------------------------------------------------


class StreamingGeneratorReplayInconsistentError(ShoalSystemError):
    """A generator that was run again yielded another number of objects than the first time."""

    remedy = "Make the generator deterministic, or set max_retries=0."


class ChannelError(ShoalSystemError):
    """A channel of a compiled graph failed."""


class ChannelTimeoutError(ChannelError, TimeoutError):
    """A channel of a compiled graph did not deliver in time."""


class CompiledGraphCapacityExceeded(ShoalSystemError):
    """A compiled graph has as many executions under way as its buffers hold."""


class DirectTransportError(ShoalSystemError):
    """A transfer between devices failed."""


RayError = ShoalError
RayTaskError = TaskError
RayActorError = ActorError
RaySystemError = ShoalSystemError
RayChannelError = ChannelError
RayChannelTimeoutError = ChannelTimeoutError
RayCgraphCapacityExceeded = CompiledGraphCapacityExceeded
RayDirectTransportError = DirectTransportError

#: Every error here, for ``except tuple(RAY_EXCEPTION_TYPES)``.
RAY_EXCEPTION_TYPES: list[type[ShoalError]] = list(
    dict.fromkeys(each for each in globals().values() if isinstance(each, type) and issubclass(each, ShoalError))
)
