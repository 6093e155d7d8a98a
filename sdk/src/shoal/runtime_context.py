"""``shoal.get_runtime_context()``: who and where the calling code is."""

from __future__ import annotations

from typing import Any

from shoal import _context, _current
from shoal._api.group_placement import captured
from shoal._core.public_ids import ActorID, JobID, NodeID, PlacementGroupID, TaskID, WorkerID
from shoal._owner.drains import DrainCallback
from shoal.runtime_env import RuntimeEnv
from shoal_common.placement import runtime_env
from shoal_common.placement.strategy import Strategy

#: Of accelerators, under the names of their resources. Only GPUs are handed out.
_FAMILIES = ("GPU", "TPU", "neuron_cores", "HPU", "NPU", "RBLN", "FURIOSA", "MBLT", "TTNPU")

#: What a process is: ``RuntimeContext.worker.mode``.
SCRIPT_MODE, WORKER_MODE = 0, 1


class ThisProcess:
    """The process that asks; of Ray's object of this kind what libraries read."""

    @property
    def mode(self) -> int | None:
        """SCRIPT_MODE in a driver, WORKER_MODE in a worker; None without a session."""
        core = _current.current_or_none()
        return None if core is None else WORKER_MODE if core.role == "worker" else SCRIPT_MODE


class RuntimeContext:
    """``get_…_id()`` are hexadecimal strings, ``…_id`` ids; those that do not apply are None."""

    worker = ThisProcess()

    def __repr__(self) -> str:
        known = {} if _current.current_or_none() is None else self.get()
        return f"RuntimeContext({', '.join(f'{name}={value!r}' for name, value in known.items())})"

    def get_job_id(self) -> str:
        return _current.current().job_id.hex()

    def get_node_id(self) -> str:
        return _current.current().node_id.hex()

    def get_worker_id(self) -> str:
        return _current.current().worker_id.hex()

    def get_task_id(self) -> str | None:
        """Of the running task or actor call; None in a driver."""
        task = _context.current_task.get()
        return task.task_id.hex() if task is not None and task.task_id else None

    def get_task_name(self) -> str | None:
        task = _context.current_task.get()
        return task.task_name if task is not None else None

    def get_task_function_name(self) -> str | None:
        """``module.function``, of an actor's call ``module.Class.method``; None in a driver."""
        task = _context.current_task.get()
        if task is None:
            return None
        if (cls := _context.process.actor_class) is not None:
            return f"{cls.__module__}.{cls.__qualname__}.{task.function_name}"
        function = task.function
        return f"{function.__module__}.{getattr(function, '__qualname__', task.function_name)}"

    def get_attempt_number(self) -> int | None:
        task = _context.current_task.get()
        return task.attempt if task is not None else None

    def get_idempotency_key(self) -> str | None:
        """Of the running task or actor call: the same whenever Shoal runs it again, in a replay of a durable actor too,
        and no other call has it. Give it to what must not be done twice outside of Shoal, which then drops a repeat.
        An attempt after an exception (``retry_exceptions``) has another one in a durable actor, as it is another run
        there; of anything else all attempts have the same. None in a driver."""
        task = _context.current_task.get()
        if task is None or not task.task_id:
            return None
        return f"{task.task_id.hex()}-{task.attempt}" if _context.process.durable else task.task_id.hex()

    def get_actor_id(self) -> str | None:
        return _context.process.actor_id.hex() or None

    def get_actor_name(self) -> str | None:
        """None outside of actors, "" for an unnamed one."""
        return _context.process.actor_name if _context.process.actor_id else None

    @property
    def job_id(self) -> JobID:
        return JobID(_current.current().job_id)

    @property
    def node_id(self) -> NodeID:
        return NodeID(_current.current().node_id)

    @property
    def worker_id(self) -> WorkerID:
        return WorkerID(_current.current().worker_id)

    @property
    def task_id(self) -> TaskID | None:
        task = _context.current_task.get()
        return TaskID(task.task_id) if task is not None and task.task_id else None

    @property
    def actor_id(self) -> ActorID | None:
        return ActorID(_context.process.actor_id) if _context.process.actor_id else None

    @property
    def current_placement_group_id(self) -> PlacementGroupID | None:
        group_id = Strategy.decode(_context.process.strategy).group_id
        return PlacementGroupID(group_id) if group_id else None

    def get_placement_group_id(self) -> str | None:
        """Of the group in which the running task or actor is."""
        return Strategy.decode(_context.process.strategy).group_id.hex() or None

    @property
    def should_capture_child_tasks_in_placement_group(self) -> bool:
        """Whether the tasks and actors created here go to the same placement group."""
        return captured() is not None

    @property
    def namespace(self) -> str:
        return _current.current().namespace

    @property
    def was_current_actor_reconstructed(self) -> bool:
        """Whether this actor has been restarted. Raises: RuntimeError outside of an actor."""
        if not _context.process.actor_id:
            raise RuntimeError("This method is only available in an actor.")
        return _context.process.incarnation > 1

    @property
    def current_actor(self) -> Any:
        """A handle to the actor that runs this; it does not keep the actor alive. Raises: RuntimeError outside."""
        from shoal._api.actor_handles import handle_from_payload

        if not _context.process.actor_id:
            raise RuntimeError("This method is only available in an actor.")
        return handle_from_payload(_context.process.actor_handle)

    def get_assigned_resources(self) -> dict[str, float]:
        """Units held by the running task, e.g. ``{"CPU": 1.0}``; an actor with default options holds ``{}``.

        Raises: AssertionError in a driver.
        """
        assert _current.current().role == "worker", "get_assigned_resources() can only be called in a task or actor"
        return dict(_context.process.resources)

    def is_canceled(self) -> bool:
        """Whether ``shoal.cancel`` was called for the running task or actor call. A call of an actor is not
        interrupted: it looks here now and then, and returns.

        Raises: RuntimeError in a driver, and in an async actor, whose coroutines are cancelled by asyncio's means.
        """
        if _current.current().role != "worker":
            raise RuntimeError("is_canceled() can only be called in a task or actor: a driver is not cancelled.")
        if _context.process.is_async:
            raise RuntimeError("is_canceled() is not supported in async actors: a cancelled call raises CancelledError")
        task = _context.current_task.get()
        return task is not None and task.cancelled

    def get_accelerator_ids(self) -> dict[str, list[str]]:
        """Of the devices granted to the running task or actor, by family; empty lists where it has none."""
        return {**{family: [] for family in _FAMILIES}, **_context.process.devices}

    def get_resource_ids(self) -> dict[str, list[str]]:
        """As ``get_accelerator_ids``."""
        return self.get_accelerator_ids()

    def get_node_labels(self) -> dict[str, str]:
        from shoal._api import cluster as _cluster

        node_id = self.get_node_id()
        return next((node["Labels"] for node in _cluster.nodes() if node["NodeID"] == node_id), {})

    def on_drain(self, callback: DrainCallback) -> None:
        """Have it called when the node of this process is about to leave the cluster (``shoal drain``, a raylet that is
        stopped, a machine that will be preempted), with the time by which it will have left, in seconds since the
        epoch, or None where nobody has said; at once when it is about to already, again when that time changes.

        It runs in a thread of its own, while tasks and calls go on. It stays for as long as this process does: have
        actors and drivers call this, since what a task gives here outlives it in its worker.
        """
        if not callable(callback):
            raise TypeError(f"on_drain() takes a function, not {type(callback).__name__}")
        _current.current().drains.add(callback)

    @property
    def gcs_address(self) -> str:
        return _current.current().gcs.address

    def get_temp_dir(self) -> str:
        import os

        return os.path.dirname(_current.current().session_dir)

    def get_session_name(self) -> str:
        return _current.current().session_name

    @property
    def runtime_env(self) -> RuntimeEnv:
        """Of the running task or actor, what it has inherited among it; in a driver its job's."""
        return RuntimeEnv(_validate=False, **runtime_env.decode(_context.process.runtime_env))

    def get_runtime_env_string(self) -> str:
        return self.runtime_env.serialize()

    def get(self) -> dict[str, Any]:
        """The main ids and the namespace as a dictionary of the ones that apply."""
        values: dict[str, Any] = {
            "job_id": self.job_id,
            "node_id": self.node_id,
            "namespace": self.namespace,
            "task_id": self.task_id,
            "actor_id": self.actor_id,
        }
        return {name: value for name, value in values.items() if value is not None}


_context_object = RuntimeContext()


def get_runtime_context() -> RuntimeContext:
    """Works in drivers, tasks and actors. Starts a session where none runs, as every other call does."""
    _current.connected()
    return _context_object
