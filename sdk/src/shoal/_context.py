"""Who am I: the task, actor and job that the current thread or coroutine works for."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Any, NoReturn


class TaskContext:
    """One running task or actor call; a driver's code runs without one."""

    __slots__ = (
        "attempt",
        "cancelled",
        "exiting",
        "function",
        "function_name",
        "started",
        "task_id",
        "task_name",
        "thread",
        "told",
    )

    def __init__(
        self, task_id: bytes, task_name: str, function_name: str, attempt: int, started: int = 0, told: bool = False
    ) -> None:
        """``started``: in the time of ``time.perf_counter_ns``. ``told``: nobody is to be told that it runs, or has
        been."""
        self.task_id = task_id
        self.task_name = task_name
        self.function_name = function_name
        self.attempt = attempt
        self.started = started
        self.told = told
        #: In which it runs; a thread of the user's may have inherited the context.
        self.thread = threading.get_ident()
        #: What runs; None until it is loaded.
        self.function: Any = None
        #: It has called ``exit_actor``: whatever it does after catching that, it is not answered.
        self.exiting = False
        #: ``cancel`` has found it running: what it returns does not count.
        self.cancelled = False


#: A context variable and not a thread-local: an async actor runs many calls in one thread.
current_task: contextvars.ContextVar[TaskContext | None] = contextvars.ContextVar("shoal_task", default=None)


class ProcessContext:
    """What holds for the whole worker process."""

    def __init__(self) -> None:
        self.actor_id = b""
        self.actor_name = ""
        self.actor_class_name = ""
        #: Its key in the function table, and what that gave.
        self.actor_class_id = b""
        self.actor_class: type | None = None
        self.actor_handle: bytes = b""
        self.incarnation = 0
        self.durable = False
        self.is_async = False
        #: Granted resources in units.
        self.resources: dict[str, float] = {}
        self.devices: dict[str, list[str]] = {}
        #: How it was to be placed, as ``SchedulingClass.strategy``.
        self.strategy = ""
        #: What its worker was started for, a driver: its job's, as ``SchedulingClass.runtime_env``.
        self.runtime_env = ""
        #: A worker: where that environment's own modules are.
        self.import_paths: list[str] = []
        #: Of the task that runs; an actor has 0.
        self.priority = 0
        #: Ends the actor from inside of its code; set by the executor.
        self.exit_actor: Callable[[], NoReturn] | None = None
        #: Has the actor's state saved; set by the executor of one that comes back after a crash.
        self.checkpoint: Callable[[], None] | None = None


process = ProcessContext()
