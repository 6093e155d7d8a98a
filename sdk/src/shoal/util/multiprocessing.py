"""``Pool``: the standard library's pool of processes, with actors on the cluster as the processes.

As in the standard library an error ends the chunk of ``map`` and ``imap`` in which it happened.
"""

from __future__ import annotations

import functools
import multiprocessing.pool
import os
import queue
import threading
from collections.abc import Callable, Iterable
from multiprocessing import JoinableQueue, TimeoutError
from typing import Any

import shoal
from shoal import exceptions
from shoal._api.actor_handles import ActorHandle
from shoal._not_implemented import refuse

__all__ = ["JoinableQueue", "Pool", "TimeoutError"]


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
        self.Process = functools.partial(_Worker, options)  # type: ignore[assignment]
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


class _Worker(threading.Thread):
    """A thread of this process that hands one chunk of work after another to an actor of its own."""

    #: The pool looks for workers that have ended; these end only with it.
    exitcode = None
    #: Shown in the pool's debug messages.
    pid = 0

    def __init__(self, options: dict[str, Any], context: object, target: object, args: tuple[Any, ...]) -> None:
        super().__init__(name="shoal-Process", daemon=True)
        self._tasks: queue.SimpleQueue[tuple[Any, ...] | None] = args[0]
        self._results: queue.SimpleQueue[tuple[Any, ...] | None] = args[1]
        start: Callable[..., Any] = shoal.remote(_PoolActor).options(**options).remote
        self._start_actor = functools.partial(start, args[2], args[3])
        self._max_tasks: int | None = args[4]
        self.actor: ActorHandle = self._start_actor()
        self._terminated = False

    def run(self) -> None:
        done = 0
        while (task := self._tasks.get()) is not None:
            job, index, function, args, kwargs = task
            outcome: tuple[bool, Any]
            try:
                outcome = True, shoal.get(self.actor.run.remote(function, args, kwargs))
            except Exception as error:  # the caller gets whatever the function raised
                outcome = False, error
            done += 1
            died = isinstance(outcome[1], exceptions.ActorDiedError) and not outcome[0]
            if (died or done == self._max_tasks) and shoal.is_initialized() and not self._terminated:
                self.actor = self._start_actor()  # the old one ends with its last handle
                done = 0
            self._results.put((job, index, outcome))
            task = function = args = kwargs = outcome = None  # type: ignore[assignment]

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
        if initializer is not None:
            initializer(*initargs)

    def run(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return function(*args, **kwargs)
