"""Questions to the raylet's object store, and their answers; what `LocalStore` and `RemoteStore` have in common."""

from __future__ import annotations

import contextlib
import itertools
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

from shoal import exceptions
from shoal._net import interrupts
from shoal._net.connection import Connection
from shoal._net.reactor import Reactor
from shoal._net.waiter import Waiter
from shoal_common.channel.frames import (
    Message,
    ObjectAbort,
    ObjectCreate,
    ObjectCreated,
    ObjectGet,
    ObjectGetEnd,
    ObjectLocated,
    ObjectPrefetch,
    ObjectUncache,
    ObjectUnpin,
    StoreError,
)
from shoal_common.kinds import StoreErrorKind

#: So many objects that came here by ``bring`` are remembered.
MAX_BROUGHT = 10_000


class Question:
    """One that is on its way to the raylet."""

    __slots__ = ("asked_back", "box", "request", "sent", "then", "undo", "waiter")

    def __init__(self, request: int, then: Callable[[Any], None] | None, asked_back: int) -> None:
        self.request = request
        #: How often the raylet had asked for objects back by then.
        self.asked_back = asked_back
        #: Called with the answer, or None when there will be none, under the process's lock.
        self.then = then
        self.waiter = Waiter()
        self.sent = False
        #: The answer. Who empties it has what the answer gives, and keeps it or gives it back.
        self.box: list[Any] = []
        #: Nobody wants it any more: takes back what the answer gives.
        self.undo: Message | None = None


class _Asked(threading.local):
    """This thread's questions that were asked ahead of ``load``, by the object."""

    def __init__(self) -> None:
        self.questions: dict[bytes, Question] = {}


class StoreClient(ABC):
    """Create, read and release objects in the store of this process's raylet. Thread-safe."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._requests = itertools.count(1)
        self._questions: dict[int, Question] = {}
        self._asked = _Asked()
        #: Objects on their way here, and who is told; the last ones that came, the oldest first.
        self._coming: dict[bytes, list[Callable[[str], None]]] = {}
        self._brought: dict[bytes, None] = {}
        #: How often the raylet has asked for objects back. Its answer that tells where one lies may be read and not yet
        #: used when it asks for that one.
        self._asked_back = 0
        self._connection: Connection | None = None
        self._node_error: Exception = exceptions.LocalRayletDiedError()

    def attach(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def _raylet(self) -> Connection:
        assert self._connection is not None
        return self._connection

    @abstractmethod
    def create(self, object_id: bytes, size: int, owner: bytes) -> memoryview:
        """Room for ``size`` bytes, to be filled and then sealed.

        Raises: ObjectStoreFullError, OutOfDiskError.
        """

    @abstractmethod
    def seal(self, object_id: bytes) -> None:
        """The object is written; from now on it can be read. Raises: ObjectStoreFullError, LocalRayletDiedError."""

    def abort(self, object_id: bytes) -> None:
        """An object that was created will not be sealed."""
        self._raylet.send(ObjectAbort(object_id))

    @abstractmethod
    def load(self, object_id: bytes, home: bytes = b"", timeout: float | None = None) -> Any:
        """The value of a sealed object. Its buffers are read-only, and valid as long as it, or anything made of it,
        lives. ``home``: the node on which it was made; empty = this one. ``timeout``: for bringing it to this node, in
        seconds; None = no limit of the caller's.

        Raises: GetTimeoutError, ObjectLostError, ObjectFetchTimedOutError, ObjectStoreFullError (no room to bring it
        here), what unpickling raises.
        """

    @abstractmethod
    def is_here(self, object_id: bytes) -> bool:
        """``load`` would ask nobody."""

    def bring(self, object_id: bytes, home: bytes, done: Callable[[str], None]) -> None:
        """Have an object come to this node; ``done("")`` when it has, or cannot just now, ``done(how)`` when it is
        lost. It is not pinned: ``load`` finds it here, or where it went to make room. Caller holds the process's lock,
        as does who calls ``done``."""
        waiting = self._coming.setdefault(object_id, [])
        waiting.append(done)
        if len(waiting) > 1:
            return

        def answered(located: ObjectLocated | None) -> None:
            lost = ""
            if located is not None and located.error:
                lost = located.error.text if located.error.kind is StoreErrorKind.OBJECT_LOST else ""
            elif located is not None:
                self._raylet.send(ObjectUnpin(object_id))
            if not lost:
                self._brought[object_id] = None
            if len(self._brought) > MAX_BROUGHT:
                del self._brought[next(iter(self._brought))]
            for each in self._coming.pop(object_id):
                each(lost)

        question = self._new_question(answered)
        self._send(question, ObjectGet(question.request, object_id, home))

    def was_brought(self, object_id: bytes) -> bool:
        """Whether it is here, or has been: asks nobody."""
        return object_id in self._brought or self.is_here(object_id)

    @contextlib.contextmanager
    def asked_together(self, objects: dict[bytes, bytes]) -> Iterator[None]:
        """Asks for several objects, each with its home, at once: within it, ``load`` by this thread finds the answer to
        its question. What was not loaded is let go of."""
        questions = {object_id: self._new_question() for object_id in objects}
        outer, self._asked.questions = self._asked.questions, dict(questions)
        try:
            for question in questions.values():
                question.sent = True
                self._questions[question.request] = question
            self._raylet.send_together(
                ObjectGet(question.request, object_id, objects[object_id]) for object_id, question in questions.items()
            )
            if self._raylet.closed:
                self.on_raylet_lost(self._node_error)
            yield
            self._end_asking(outer, questions)
        except BaseException:  # also out of a signal's handler, in the middle of the same
            self._end_asking(outer, questions)
            raise

    def _end_asking(self, outer: dict[bytes, Question], asked: dict[bytes, Question]) -> None:
        self._asked.questions = outer
        for object_id, question in asked.items():
            self._take_back(question, ObjectUnpin(object_id))

    def prefetch(self, objects: list[tuple[bytes, bytes]]) -> None:
        """These, each with its home, will be loaded soon: begin to bring them to this node, or out of their blobs."""
        self._raylet.send(ObjectPrefetch(objects))

    def forget(self, object_id: bytes) -> None:
        """It is lost: whether it was here says nothing any more."""
        self._brought.pop(object_id, None)
        self.uncache([object_id])

    @abstractmethod
    def uncache(self, object_ids: list[bytes]) -> None:
        """Let go of what no value uses."""

    @abstractmethod
    def release_unpinned(self) -> None:
        """Tell the raylet of the pins that ended. Called where no lock is held."""

    def tick(self) -> bool:
        """Now and then, where no lock is held. Tells whether it has something to give back soon."""
        return False

    @abstractmethod
    def close(self) -> None:
        """Let go of everything but what values still use."""

    def _ask_for_room(self, object_id: bytes, size: int, owner: bytes) -> ObjectCreated:
        """Who does not use it aborts the object. Raises: ObjectStoreFullError, OutOfDiskError."""
        question = self._new_question()
        try:
            self._send(question, ObjectCreate(question.request, object_id, size, owner))
            answer: ObjectCreated = self._answer(question)
            if answer.error:
                raise store_error(answer.error, object_id)
            return answer
        except BaseException:
            self._take_back(question, ObjectAbort(object_id))
            raise

    def _locate(self, question: Question, object_id: bytes, home: bytes, timeout: float | None) -> ObjectLocated:
        """Pins the object: who asks takes the answer out of the box when there is something that ends the pin, and
        otherwise has it taken back. Raises: as ``load``, LocalRayletDiedError."""
        if not question.sent:
            self._send(question, ObjectGet(question.request, object_id, home))
        if timeout is not None and not self._reactor.wait(question.waiter, timeout):
            # The answer may be on its way, and has pinned the object then.
            self._raylet.send(ObjectGetEnd(question.request, object_id))
        located: ObjectLocated = self._answer(question)
        if located.error:
            raise store_error(located.error, object_id)
        return located

    # -- answers ------------------------------------------------------------------------------------

    def _new_question(self, then: Callable[[Any], None] | None = None) -> Question:
        return Question(next(self._requests), then, self._asked_back)

    def _send(self, question: Question, message: Message) -> None:
        question.sent = True
        self._questions[question.request] = question
        self._raylet.send(message)
        if self._raylet.closed:
            self.on_raylet_lost(self._node_error)  # it was gone before the question was noted

    def _answer(self, question: Question) -> Any:
        """Stays in the box. Raises: LocalRayletDiedError when none will come."""
        if not question.box:
            self._reactor.wait(question.waiter, brief=True)
        if not question.box:
            raise self._node_error.with_traceback(None)
        return question.box[0]

    def _take_back(self, question: Question, undo: Message) -> None:
        """What the answer gives, or will give, unless somebody has it: at whatever moment the wait for it, or what was
        made of it, was interrupted (by Ctrl-C, a time limit)."""
        with interrupts.uncut():
            question.undo = undo
            self._undo(question)

    def _undo(self, question: Question) -> None:
        try:
            answer = question.box.pop()
        except IndexError:
            return  # it has not come yet, or somebody has it
        if question.undo is not None and not answer.error:
            self._raylet.send(question.undo)

    def on_answer(self, answer: Any) -> None:
        question = self._questions.pop(answer.request)
        question.box.append(answer)
        if question.undo is not None:
            self._undo(question)
        self._reactor.finish(question.waiter)
        if question.then is not None:
            question.then(answer)

    def on_uncache(self, message: ObjectUncache) -> None:
        if message.object_ids:
            self._asked_back += 1  # first: what is cached from here on is of questions that come later
            self.uncache(message.object_ids)

    def on_raylet_lost(self, error: Exception) -> None:
        """Wake everybody who waits for an answer that will not come: they raise ``error``."""
        self._node_error = error
        while self._questions:
            _, question = self._questions.popitem()
            self._reactor.finish(question.waiter)
            if question.then is not None:
                question.then(None)


def store_error(error: StoreError, object_id: bytes) -> Exception:
    """What the raylet says in an answer, as the exception that the user gets."""
    match error.kind:
        case StoreErrorKind.STORE_FULL:
            return exceptions.ObjectStoreFullError(error.text)
        case StoreErrorKind.OUT_OF_DISK:
            return exceptions.OutOfDiskError(error.text)
        case StoreErrorKind.GET_TIMED_OUT:
            late = f"Get timed out: object {object_id.hex()} did not come in time. {error.text}"
            return exceptions.GetTimeoutError(late)
        case StoreErrorKind.FETCH_TIMED_OUT:
            return exceptions.ObjectFetchTimedOutError(object_id.hex(), detail=error.text)
        case StoreErrorKind.OBJECT_LOST:
            return exceptions.ObjectLostError(object_id.hex(), detail=error.text)
