"""Values as futures of ``concurrent.futures``."""

from __future__ import annotations

import concurrent.futures
import queue
import threading
from collections.abc import Callable
from typing import Any

from shoal._core.object_ref import ObjectRef
from shoal._net.interrupts import GuardedLock
from shoal._owner.objects.values import Values
from shoal._owner.objects.waiting import Waiting

#: Callbacks that run, and may wait, at the same time; what comes beyond waits for one to return.
MAX_THREADS = 64
#: A thread without work ends after so many seconds.
IDLE_S = 1.0


class _Threads:
    """For what must not run on the leading thread: as many as are busy at once. Daemons: a callback that never returns
    must not keep the program from ending (``ThreadPoolExecutor`` would wait for it)."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = GuardedLock()
        self._count = 0
        #: Threads without work, less the jobs that wait.
        self._free = 0

    def run(self, job: Callable[[], None]) -> None:
        with self._lock:
            self._jobs.put(job)
            self._free -= 1
            if self._free < 0 and self._count < MAX_THREADS:
                self._count += 1
                self._free += 1
                threading.Thread(target=self._work, name="shoal-future", daemon=True).start()

    def _work(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=IDLE_S)
            except queue.Empty:
                with self._lock:
                    if self._free > 0:
                        self._free -= 1
                        self._count -= 1
                        return
                continue
            job()
            del job  # nothing of the user's lives on while this waits
            with self._lock:
                self._free += 1


class Futures:
    """Of one process."""

    def __init__(self, waiting: Waiting, values: Values) -> None:
        self._waiting = waiting
        self._values = values
        self._threads = _Threads()

    def concurrent_future(self, ref: ObjectRef[Any]) -> concurrent.futures.Future[Any]:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()

        def resolve() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                value = self._values.value_of(ref._entry)
            except BaseException as error:  # the future carries whatever the task raised
                future.set_exception(error)
            else:
                future.set_result(value)

        # Unpickling and the future's callbacks are user code, which may wait for what the leading thread brings.
        self._waiting.when_ready(ref, lambda: self._threads.run(resolve))
        return future
