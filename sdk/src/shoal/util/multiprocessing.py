"""``Pool``: the standard library's pool of processes, with actors on the cluster as the processes.

As in the standard library an error ends the chunk of ``map`` and ``imap`` in which it happened.
"""

from __future__ import annotations

import functools
import itertools
import math
import multiprocessing.pool
import os
import pickle
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from multiprocessing import JoinableQueue, TimeoutError
from multiprocessing.pool import mapstar  # type: ignore[attr-defined]
from types import FunctionType
from typing import Any, NamedTuple

import shoal
from shoal import exceptions
from shoal._api.actor_handles import ActorHandle
from shoal._core.object_ref import ObjectRef
from shoal._not_implemented import refuse
from shoal._values.serialization import PLAIN, serialize
from shoal._wire.peer_frames import SYSTEM_GROUP
from shoal._wire.value_kinds import PENDING

__all__ = ["JoinableQueue", "Pool", "TimeoutError"]

#: A chunk of work that takes longer holds back no others, in seconds.
LATE_S = 0.05
#: In place of a chunk: one was given back.
_LOOK: tuple[Any, ...] = ()
#: Options with which the calls of an actor need not run one after the other in one process.
_NOT_IN_ORDER = {"max_concurrency", "concurrency_groups", "allow_out_of_order_execution", "max_restarts"}


class Pool(multiprocessing.pool.ThreadPool):
    """As ``multiprocessing.Pool``, on the cluster.

    ``processes`` defaults to the cluster's CPUs. ``maxtasksperchild``: an actor is replaced after so many chunks of
    work, None = never. ``ray_address``: of the cluster to connect to where Shoal is not running yet.
    ``ray_remote_args``: options of the actors; without any they hold no CPU.

    Raises: ValueError (more processes than CPUs, bad numbers, a ``context``: actors are not started by one), TypeError,
    ActorDiedError (``initializer`` failed).
    """

    #: For __del__, in case that something raises before the base class has begun.
    _state = multiprocessing.pool.INIT

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] | None = None,
        maxtasksperchild: int | None = None,
        context: Any = None,
        ray_address: str | None = None,
        ray_remote_args: dict[str, Any] | None = None,
    ) -> None:
        refuse("context", context, (None,), "actors are started by the cluster. Use shoal.init() to say of which")
        if not shoal.is_initialized():
            local = ray_address == "local" or (ray_address is None and not os.environ.get("SHOAL_ADDRESS"))
            shoal.init(ray_address, num_cpus=processes if local else None)
        cpus = int(shoal.cluster_resources().get("CPU", 0))
        if processes is None:
            processes = max(1, cpus)
        if processes <= 0:
            raise ValueError("Processes in the pool must be >0.")
        if processes > cpus:
            raise ValueError(f"Tried to start a pool with {processes} processes, but the cluster has only {cpus} CPUs.")
        options = {"num_cpus": 0, **(ray_remote_args or {})}
        # The standard library's threads, queues and results serve as they are; only what a worker is, is replaced.
        self.Process = functools.partial(_Worker, options, deque())  # type: ignore[assignment]
        multiprocessing.pool.Pool.__init__(self, processes, initializer, tuple(initargs or ()), maxtasksperchild)
        try:
            workers: list[_Worker] = self._pool  # type: ignore[attr-defined]
            shoal.get([worker.actor.__ray_ready__.remote() for worker in workers])
        except BaseException:
            self.terminate()
            raise

    def terminate(self) -> None:
        """End the actors and what they run. Results that are still to come are TaskCancelledError; the standard
        library's never come, and ``get`` waits for ever."""
        super().terminate()
        error = exceptions.TaskCancelledError(error_message="Its pool was terminated before it had finished.")
        for result in list(self._cache.values()):  # type: ignore[attr-defined]
            _fail(result, error)


def _fail(result: Any, error: Exception) -> None:
    """End a pending result of the standard library's pool, of whose threads none runs any more."""
    if isinstance(result, multiprocessing.pool.IMapIterator):
        result._set(result._index, (False, error))  # type: ignore[attr-defined]
        if result._length != result._index:  # type: ignore[attr-defined]
            result._set_length(result._index)  # type: ignore[attr-defined]
        return
    while not result.ready():  # once for every chunk that is missing
        result._set(0, (False, error))


class _Ahead:
    """How many chunks of work an actor has at once: the one that it runs, and as many of those it runs next as take it
    ``WORK_S``, so that short ones need no wake-up each. Pure."""

    WORK_S = 0.005
    MOST = 32

    def __init__(self) -> None:
        #: How long one takes, in seconds: an exponential mean; infinite = unknown.
        self._mean_s = math.inf

    @property
    def room(self) -> int:
        return max(1, min(self.MOST, int(self.WORK_S / self._mean_s)))

    def ended(self, chunks: int, seconds: float) -> None:
        """So many, one after the other, have taken so long."""
        each_s = max(seconds / chunks, 1e-6)
        self._mean_s = each_s if self._mean_s == math.inf else (self._mean_s + each_s) / 2


class _Sent(NamedTuple):
    """A chunk of work that an actor has."""

    number: int
    #: As the standard library has it: job, index, function, args, kwargs.
    task: tuple[Any, ...]
    ref: ObjectRef[Any]
    #: By ``run_plain``.
    plain: bool


class _Worker(threading.Thread):
    """A thread of this process that hands chunks of work to an actor of its own, which runs them in this order.

    What waits there behind one that turns out to be long is given back, and goes to whoever is free. So is what an
    actor that dies has not begun; the oldest that it had fails.
    """

    #: The pool looks for workers that have ended; these end only with it.
    exitcode = None
    #: Shown in the pool's debug messages.
    pid = 0

    def __init__(
        self,
        options: dict[str, Any],
        given_back: deque[tuple[Any, ...]],
        context: object,
        target: object,
        args: tuple[Any, ...],
    ) -> None:
        """``given_back``: chunks that an actor of the pool had and has not begun."""
        super().__init__(name="shoal-Process", daemon=True)
        self._tasks: queue.SimpleQueue[tuple[Any, ...] | None] = args[0]
        self._results: queue.SimpleQueue[tuple[Any, ...] | None] = args[1]
        self._given_back = given_back
        #: The pool is closed: nothing more comes, but for what is given back.
        self._closed = False
        start: Callable[..., Any] = shoal.remote(_PoolActor).options(**options).remote
        self._start_actor = functools.partial(start, args[2], args[3])
        self._max_tasks: int | None = args[4]
        self._in_order = not options.keys() & _NOT_IN_ORDER
        self.actor: ActorHandle = self._start_actor()
        self._terminated = False
        self._sent: deque[_Sent] = deque()
        self._numbers = itertools.count(1)
        #: The job whose function the actor has, or gets with the next chunk; and that function until it has gone.
        self._job = -1
        self._function: bytes | None = None
        self._ahead = _Ahead()
        #: When the actor began the oldest of them.
        self._begun_at = 0.0
        #: Chunks that this actor has run.
        self._done = 0
        self._died = False

    def run(self) -> None:
        while True:
            while len(self._sent) < self._room() and (task := self._next()) is not None:
                self._send(task)
            if not self._sent:
                return
            self._collect()
            if not self._sent and (self._died or self._done == self._max_tasks):
                self._replace_actor()

    # -- what the actor gets ----------------------------------------------------------------------------

    def _room(self) -> int:
        if self._died:
            return 0
        room = self._ahead.room if self._in_order else 1
        return room if self._max_tasks is None else min(room, self._max_tasks - self._done)

    def _next(self) -> tuple[Any, ...] | None:
        """None: there is nothing now, or where this would wait for it, as the actor has nothing else, ever."""
        while True:
            try:
                return self._given_back.popleft()
            except IndexError:
                if self._closed:
                    return None
            try:
                task = self._tasks.get(block=not self._sent)
            except queue.Empty:
                return None
            if task is None:
                self._closed = True
            elif task:
                return task

    def _send(self, task: tuple[Any, ...]) -> None:
        job, index, function, args, kwargs = task
        number = next(self._numbers)
        if not self._sent:
            self._begun_at = time.monotonic()
        try:
            plain = self._in_order and function is mapstar and self._is_plain(job, *args[0])
            if plain:
                ref = self.actor.run_plain.remote(number, self._function, pickle.dumps(args[0][1], 5))
                self._function = None
            else:
                ref = self.actor.run.remote(number, function, args, kwargs)
        except Exception as error:  # it cannot be pickled, for example
            self._results.put((job, index, (False, error)))
        else:
            self._sent.append(_Sent(number, task, ref, plain))

    def _is_plain(self, job: int, function: Any, values: tuple[Any, ...]) -> bool:
        """Values that the C pickler takes, and a function without a state of its own. It goes along with the next
        chunk, once for all of the job: with each it would take twice as long as everything else."""
        if type(function) is not FunctionType or function.__closure__ or not PLAIN.issuperset(map(type, values)):
            return False
        if job != self._job:
            serialized = serialize((function,), "the function of a pool")
            if serialized.contained or serialized.buffers:
                return False
            self._job, self._function = job, serialized.pickled
        return True

    def _give_back(self, task: tuple[Any, ...]) -> None:
        self._given_back.append(task)
        self._tasks.put(_LOOK)

    # -- what comes of it -------------------------------------------------------------------------------

    def _collect(self) -> None:
        """Wait for the oldest one; those that are there with it are taken too."""
        taken = 0
        while not taken or (self._sent and self._sent[0].ref._entry.state != PENDING):
            sent = self._sent.popleft()
            outcome = self._outcome(sent)
            taken += 1
            if type(outcome[1]) is exceptions.ActorDiedError and not outcome[0] and not self._terminated:
                if self._died:
                    self._give_back(sent.task)
                    continue
                self._died = True
            self._done += 1
            self._results.put((*sent.task[:2], outcome))
        now = time.monotonic()
        self._ahead.ended(taken, now - self._begun_at)
        self._begun_at = now

    def _outcome(self, sent: _Sent) -> tuple[bool, Any]:
        try:
            try:
                result = shoal.get(sent.ref, timeout=LATE_S if self._sent else None)
            except exceptions.GetTimeoutError as error:
                if isinstance(error, exceptions.TaskError):
                    raise  # the function's own
                self._take_back(sent.number)
                result = shoal.get(sent.ref)
            return True, pickle.loads(result) if sent.plain and type(result) is bytes else result
        except Exception as error:  # the caller gets whatever the function raised
            return False, error

    def _take_back(self, oldest: int) -> None:
        """What is behind the oldest one and has not begun."""
        beside = self.actor.__ray_call__.options(concurrency_group=SYSTEM_GROUP)
        try:
            begun: int = shoal.get(beside.remote(_PoolActor.give_back, oldest, self._sent[-1].number))
        except (exceptions.ShoalError, ValueError):
            return  # its actor or its session has ended, as whoever waits for the oldest one is told
        while self._sent and self._sent[-1].number > begun:
            self._give_back(self._sent.pop().task)

    # -- the actor ----------------------------------------------------------------------------------------

    def _replace_actor(self) -> None:
        if shoal.is_initialized() and not self._terminated:
            self.actor = self._start_actor()  # the old one ends with its last handle
            self._job = -1
        self._done = 0
        self._died = False

    def terminate(self) -> None:
        """End the actor, and so the work it does."""
        self._terminated = True
        if shoal.is_initialized():
            try:
                shoal.kill(self.actor)
            except exceptions.ActorHandleNotFoundError:
                return  # of an earlier session: it ended with that


class _PoolActor:
    def __init__(self, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
        self._lock = threading.Lock()
        #: Numbers of chunks: the last that has begun; those behind the first of these up to the second do not begin.
        self._begun = 0
        self._given_back = (0, 0)
        #: Of ``run_plain``: as it came, and loaded.
        self._pickled = b""
        self._function: Callable[..., Any] | None = None
        if initializer is not None:
            initializer(*initargs)

    def run(self, number: int, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A chunk: as the standard library has it."""
        return function(*args, **kwargs) if self._begins(number) else None

    def run_plain(self, number: int, function: bytes | None, values: bytes) -> bytes | list[Any] | None:
        """A chunk of ``map``; ``function`` None: as that of the last one. Plain results come pickled."""
        if function is not None:
            self._pickled, self._function = function, None
        if not self._begins(number):
            return None
        if self._function is None:
            (self._function,) = pickle.loads(self._pickled)
        results = list(map(self._function, pickle.loads(values)))
        return pickle.dumps(results, 5) if PLAIN.issuperset(map(type, results)) else results

    def _begins(self, number: int) -> bool:
        """False: another actor runs it."""
        with self._lock:
            kept, last = self._given_back
            if kept < number <= last:
                return False
            self._begun = number
            return True

    def give_back(self, oldest: int, last: int) -> int:
        """Of those up to ``last``, begin none any more but for ``oldest``; tells the last one that has begun, or will.
        Called beside what runs."""
        with self._lock:
            self._given_back = max(self._begun, oldest), last
            return self._given_back[0]
