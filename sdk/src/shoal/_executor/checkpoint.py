"""An actor's state, saved for its next process and restored in it; of a durable actor its calls too.

The state is what ``__shoal_checkpoint__()`` returns, by default the ``__dict__``, pickled between two calls and stored
in a thread beside, while further calls run. What is restored, and what of the log belongs to it, is decided in
``shoal._core.checkpoints``; which calls have run, in ``shoal._core.executions``.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from shoal import exceptions
from shoal._core.checkpoints import Due, LogPart, Stored, Version, incarnation_name
from shoal._core.executions import Executions
from shoal._executor.call_log import PATIENCE_S, BlobLog, CallLog, FileLog
from shoal._executor.checkpoint_store import CheckpointStore, StoreFailure, insist
from shoal._executor.process_end import end_process
from shoal._owner.tasks.arguments import load_arguments
from shoal._values.ref_pickling import collected
from shoal._values.serialization import loads, serialize, serialize_arguments
from shoal._wire.actor_creation import ActorCreation
from shoal._wire.checkpoint_blobs import Call, Damaged, Saved, decode_saved, encode, framed, whole_calls
from shoal._wire.peer_frames import TaskPush, TaskReply
from shoal._wire.value_kinds import ASK, ERROR, STORED
from shoal_common.channel import frames
from shoal_common.kinds import BlobErrorKind, ExitKind

if TYPE_CHECKING:
    from shoal._executor.run import Runner
    from shoal._owner.core_worker import CoreWorker

logger = logging.getLogger("shoal")

CHECKPOINT_HOOK, RESTORE_HOOK = "__shoal_checkpoint__", "__shoal_restore__"
#: Checkpoints are listed so often at most while those of the listing before are gone.
_LISTINGS = 3
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def make_keeper(
    core: CoreWorker, creation: ActorCreation, message: frames.CreateActor, directory: str
) -> Keeper | None:
    """``directory``: where the log of a durable actor is appended to; empty = it is made of blobs.

    None: it does not come back after a crash, so nobody would ever restore anything.
    """
    if not creation.restarts:
        return None
    store = CheckpointStore(core)
    name = f"actor {creation.class_name}({message.actor_id.hex()})"
    log: CallLog | None = None
    if creation.durable:
        lost = partial(_give_up, core, name)
        if directory:
            log = FileLog(Path(directory, "checkpoint", message.actor_id.hex()), store, message.incarnation, lost)
        else:
            log = BlobLog(store, message.incarnation, lost)
    return Keeper(core, creation, message, name, store, log)


def _give_up(core: CoreWorker, name: str, reason: str) -> NoReturn:
    """From any thread: this process can go on no longer, and another takes its place."""
    logger.error("%s ends: %s", name, reason)
    core.raylet.send(frames.ExitIntent(ExitKind.SYSTEM_ERROR, reason))
    end_process(1)


class Keeper:
    """Of one actor's process. Used by the thread that runs its calls, unless a method says more."""

    def __init__(
        self,
        core: CoreWorker,
        creation: ActorCreation,
        message: frames.CreateActor,
        name: str,
        store: CheckpointStore,
        log: CallLog | None,
    ) -> None:
        """``name``: for humans. ``log``: of a durable actor."""
        self._core = core
        self._creation = creation
        self._incarnation = message.incarnation
        self._actor_id = message.actor_id
        #: The GCS knows that there are checkpoints.
        self._known = message.checkpoints
        self._name = name
        self._store = store
        self._log = log
        self._due = Due(creation.checkpoint_every, creation.checkpoint_interval_s, time.monotonic())
        #: Of the last checkpoint that was taken.
        self._number = 0
        #: What could not be used.
        self._damaged: list[Version] = []
        self._instance: Any = None
        #: One checkpoint is taken or stored at a time.
        self._storing = threading.Lock()
        #: What the last one failed for, so that it is said once.
        self._told = ""
        #: ``shoal.checkpoint()`` was called in a durable actor's call that runs now.
        self._wanted = False
        self.durable = creation.durable
        self.executions = Executions()
        #: Calls that have run and are not in the log. Always this list: a thread may add to it while another takes.
        self._unlogged: list[Call] = []
        #: What happened to callers, from the thread that leads the reactor.
        self._news: deque[Callable[[], None]] = deque()

    @property
    def is_regular(self) -> bool:
        """Something is to be done at every call."""
        creation = self._creation
        return creation.durable or creation.checkpoint_every > 0 or creation.checkpoint_interval_s > 0

    # -- the beginning ------------------------------------------------------------------------------------

    def begin(self, instance: Any, runner: Runner) -> None:
        """The constructor has returned: restore what an earlier incarnation has left.

        Raises: CheckpointError; whatever the user's hooks raise.
        """
        self._instance = instance
        if not self.durable and not (self._known and self._incarnation > 1):
            return
        try:
            self._restore(runner)
            if self.durable:
                self._save(store=self._insisted)
        except StoreFailure as failure:
            if failure.passes:
                _give_up(self._core, self._name, f"what keeps its checkpoints is away: {failure}")
            raise exceptions.CheckpointError(f"{self._name} cannot be restored: {failure}") from None

    def _restore(self, runner: Runner) -> None:
        if self.durable:
            name = incarnation_name(self._incarnation)
            self._insist(lambda: self._store.put(name, b""))
        stored = Stored(self._insist(self._store.names))
        start = self._restore_newest(stored.checkpoints)
        if self.durable:
            for part in stored.log_after(start):
                self._replay(part, runner)

    def _restore_newest(self, versions: list[Version], listings: int = _LISTINGS) -> Version | None:
        """From the newest checkpoint that is whole; None = as the constructor has left it."""
        for version in reversed(versions):
            try:
                saved = decode_saved(self._insist(partial(self._store.get, version.name)))
                state = self._loaded(saved)
            except (StoreFailure, Damaged) as failure:
                if isinstance(failure, StoreFailure):
                    if failure.passes:
                        raise
                    if failure.kind is BlobErrorKind.NOT_FOUND and not self.durable and listings > 1:
                        # An earlier process still runs, and has stored newer ones since the listing: nothing but a
                        # durable actor's log would have told it that it is replaced.
                        return self._restore_newest(Stored(self._insist(self._store.names)).checkpoints, listings - 1)
                logger.warning("Checkpoint %s of %s is passed over: %s", version.name, self._name, failure)
                self._damaged.append(version)
                continue
            self._put_into_instance(state)
            self._number = version.number
            self.executions.restore(version.number, saved.answers, time.monotonic())
            return version
        if versions and self.durable:
            raise exceptions.CheckpointError(
                f"{self._name}: none of its {len(versions)} checkpoints can be used, and its log goes back no further"
            )
        if versions:
            logger.error("%s begins anew: none of its %d checkpoints can be used", self._name, len(versions))
        return None

    def _loaded(self, saved: Saved) -> Any:
        """The state. Raises: Damaged."""
        if saved.class_name != self._creation.class_name:
            raise Damaged(f"it is of the class {saved.class_name}")
        if saved.python != _PYTHON:
            raise Damaged(f"Python {saved.python} has pickled it, and this is Python {_PYTHON}")
        received: list[Any] = []
        outer, collected.unpickled = collected.unpickled, received
        try:
            state = loads(saved.state)
        except Exception as error:  # unpickling runs whatever code the state names
            raise Damaged(f"its state cannot be unpickled: {type(error).__name__}: {error}") from error
        finally:
            collected.unpickled = outer
        if received:
            with self._core.lock:
                self._core.borrowing.register(received)
        return state

    def _put_into_instance(self, state: Any) -> None:
        hook = getattr(self._instance, RESTORE_HOOK, None)
        if hook is not None:
            hook(state)
            return
        attributes = vars(self._instance)
        attributes.clear()
        attributes.update(state)

    def _replay(self, part: LogPart, runner: Runner) -> None:
        """Run the calls of this part of the log that have not run yet. Raises: CheckpointError, StoreFailure."""
        log, executions = self._log, self.executions
        assert log is not None
        name = part.version.log_name
        try:
            calls = whole_calls(self._insist(lambda: log.read(part.version)))
        except Damaged as damage:
            raise exceptions.CheckpointError(f"{self._name}: its log {name} is damaged: {damage}") from None
        for call in calls:
            if call.number <= executions.number or (part.until is not None and call.number > part.until):
                continue
            if call.number != executions.number + 1:
                raise exceptions.CheckpointError(
                    f"{self._name}: its log {name} goes on with call {call.number}, but call "
                    f"{executions.number + 1} is missing"
                )
            if _is_self_contained(call.push):
                self._run_again(call, runner)
            call.reply.borrowed = None  # of references, this process has told nobody
            executions.ran(call.caller, call.push, call.reply)
            executions.answered(call.caller, call.answered)

    def _run_again(self, call: Call, runner: Runner) -> None:
        reply = runner.run(call.caller, call.push)
        before = call.reply
        # Errors name the process in which they were raised.
        if reply is not None and reply.kind != ERROR != before.kind and reply.payload != before.payload:
            # It may tell of the process or the time, so this is no error; whoever asks again gets the first answer.
            logger.info("Call %d of %s, %s, has another answer in its replay", call.number, self._name, call.push.name)

    # -- calls ----------------------------------------------------------------------------------------------

    def caller_has(self, caller: bytes, sequence: int) -> None:
        """The answers of its calls up to ``sequence``. From the leading thread."""
        self._news.append(partial(self.executions.answered, caller, sequence))

    def caller_gone(self, caller: bytes) -> None:
        """From the leading thread."""
        self._news.append(partial(self.executions.left, caller, time.monotonic()))

    def before(self, caller: bytes, push: TaskPush) -> TaskPush | TaskReply | None:
        """Of a durable actor's call: what is to run, or the answer if it has run; None = that is known to the caller.
        Waits while too much is not stored yet."""
        news = self._news
        while news:
            news.popleft()()
        if self.executions.is_new(caller, push):
            assert self._log is not None
            self._log.wait_for_room()
            return push
        return self.executions.answer(caller, push)

    def self_contained(self, push: TaskPush, home: bytes) -> tuple[TaskPush, list[Any]]:
        """The same call with the values that lie in object stores, which their owners need not keep until a replay;
        and the references in them, to be held until it has run. The call itself when they cannot be had."""
        if _is_self_contained(push):
            return push, []
        received: list[Any] = []
        try:
            args, kwargs = load_arguments(self._core.values, push, received, home, wait=True)
            serialized = serialize_arguments(tuple(args), kwargs)
        except Exception:  # running it raises the same, and that is the answer
            return push, received
        whole = TaskPush(
            push.task_id,
            push.function_id,
            push.name,
            serialized.pickled,
            [bytes(buffer) for buffer in serialized.buffers] or None,
            num_returns=push.num_returns,
            sequence=push.sequence,
            attempt=push.attempt,
            retry_exceptions=push.retry_exceptions,
            task_name=push.task_name,
        )
        return whole, received

    def ran(self, caller: bytes, push: TaskPush, reply: TaskReply) -> None:
        """Before anybody is answered."""
        self._due.ran()
        if self.durable:
            self._unlogged.append(self.executions.ran(caller, push, reply))

    def release(self, send: Callable[[], None], more: bool = False) -> None:
        """Have the answers of what has run sent, once that is in the log. One thread at a time, also another one.
        ``more``: as in ``CallLog.append``."""
        assert self._log is not None
        calls = self._unlogged[:]
        del self._unlogged[: len(calls)]
        if calls:
            self._log.append(calls[0].number, framed(calls), send, more)
        else:
            self._log.append(0, b"", send, more)

    def after(self, now: float, flush: Callable[[], None]) -> None:
        """Between two calls: a checkpoint, if one is due. ``flush`` releases all answers."""
        if self._wanted:
            self._wanted = False
            flush()
            with self._storing:
                self._try(partial(self._save, store=self._insisted))
        elif self._due.is_due(now) and self._storing.acquire(blocking=False):
            if self.durable:
                flush()
            self._try(self._begin_checkpoint)

    def is_due(self) -> bool:
        """From any thread."""
        return self._due.is_due(time.monotonic())

    def leave(self, flush: Callable[[], None]) -> None:
        """The process ends in order, and another may follow: it then has nothing to run again."""
        if self.is_regular and self._due.calls:
            flush()
            with self._storing:
                self._try(partial(self._save, store=self._stored))

    def drain(self) -> None:
        """Until everything that was released has been sent. From any thread."""
        if self._log is not None:
            self._log.drain()

    # -- checkpoints ----------------------------------------------------------------------------------------

    def checkpoint(self) -> None:
        """As ``shoal.checkpoint``; from any thread. Raises: CheckpointError, TypeError."""
        if self.durable:
            self._wanted = True
            return
        with self._storing:
            try:
                if not self._known:
                    self._core.gcs.actors.note_checkpoint(self._actor_id, self._incarnation)
                    self._known = True
                self._save(store=self._stored)
            except (StoreFailure, exceptions.RpcError) as failure:
                raise exceptions.CheckpointError(f"A checkpoint of {self._name} was not stored: {failure}") from None

    def _try(self, action: Callable[[], None]) -> None:
        """A failure costs the checkpoint, not the actor."""
        try:
            action()
        except Exception as error:  # the user's hook, or what the state does when it is pickled
            self._storing_failed(error)

    def _begin_checkpoint(self) -> None:
        """Take it now and store it in a thread beside. The lock ``_storing`` is held, and let go of there."""
        try:
            version, data = self._take()
        except BaseException:
            self._storing.release()
            raise
        finish = threading.Thread(
            target=self._finish_checkpoint, args=(version, data), name="shoal-checkpoint", daemon=True
        )
        finish.start()

    def _finish_checkpoint(self, version: Version, data: bytes) -> None:
        try:
            self._stored(version, data)
        except StoreFailure as failure:
            self._storing_failed(failure)
        finally:
            self._storing.release()

    def _storing_failed(self, error: Exception) -> None:
        if str(error) != self._told:
            self._told = str(error)
            logger.error("A checkpoint of %s was not stored, the actor goes on without: %s", self._name, error)

    def _save(self, *, store: Callable[[Version, bytes], None]) -> None:
        store(*self._take())

    def _take(self) -> tuple[Version, bytes]:
        """The state as it is now, for its blob. Raises: TypeError that names the attribute; what the hook raises."""
        self._due.taken(time.monotonic())
        saved = Saved(self._creation.class_name, _PYTHON, self._pickled_state())
        if self.durable:
            self._number = self.executions.number
            saved.answers = self.executions.save()
            assert self._log is not None
            self._log.roll()
        else:
            self._number += 1
        return Version(self._incarnation, self._number), encode(saved)

    def _pickled_state(self) -> bytes:
        hook = getattr(self._instance, CHECKPOINT_HOOK, None)
        if hook is not None:
            return serialize(hook(), f"what {CHECKPOINT_HOOK} of {self._name} returned", out_of_band=False).pickled
        try:
            attributes = vars(self._instance)
        except TypeError:
            raise TypeError(
                f"{self._name} has no __dict__ to save: define {CHECKPOINT_HOOK} and {RESTORE_HOOK}"
            ) from None
        return serialize(attributes, f"the state of {self._name}", out_of_band=False).pickled

    def _stored(self, version: Version, data: bytes) -> None:
        """Store it, and delete what it makes superfluous. Raises: StoreFailure."""
        names = self._store.put(version.name, data, then_list="")
        self._told = ""
        if self._log is not None:
            # A later incarnation that does not see this checkpoint may be reading what would be deleted.
            self._log.end_if_replaced(names)
        try:
            self._store.delete(Stored(names).superfluous(self._damaged))
        except StoreFailure as failure:
            logger.info("Old checkpoints of %s are still there: %s", self._name, failure)

    def _insisted(self, version: Version, data: bytes) -> None:
        self._insist(lambda: self._stored(version, data))

    def _insist(self, action: Callable[[], Any]) -> Any:
        return insist(action, PATIENCE_S, lambda failure: logger.warning("%s waits: %s", self._name, failure))


def _is_self_contained(push: TaskPush) -> bool:
    """Its arguments' values are in the call itself."""
    if push.args_object:
        return False
    return push.refs is None or all(ref.value.kind not in (STORED, ASK) for ref in push.refs)
