"""Functions, classes and a job's settings: from the function table into this worker, each once."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from shoal import _context, _structured_logs, _tracing, exceptions
from shoal._values.serialization import loads
from shoal._wire import job_settings
from shoal._wire.peer_frames import TaskPush
from shoal_common import ids
from shoal_common.channel import frames
from shoal_common.placement import runtime_env

if TYPE_CHECKING:
    from shoal._owner.core_worker import CoreWorker


class Functions:
    """What this worker has loaded of the function table. Used by the thread that runs the code."""

    def __init__(self, core: CoreWorker) -> None:
        self._core = core
        self._loaded: dict[bytes, Any] = {}
        #: Why nothing can run in this process.
        self._spoilt: exceptions.RuntimeEnvSetupError | None = None

    def of(self, push: TaskPush) -> Any:
        """The function that a task runs. Raises as ``load``."""
        function = self._loaded.get(push.function_id)
        if function is None:
            self.ensure_job(ids.job_of(push.task_id))
            function = self._loaded[push.function_id] = self.load(push.function_id)
        return function

    def load(self, function_id: bytes) -> Any:
        """A function or class. Raises: ShoalSystemError (not to be had), what unpickling raises, with a hint."""
        answer = self._ask(function_id)
        if answer is None or answer.error:
            reason = "this node's raylet has ended" if answer is None else answer.error
            raise exceptions.ShoalSystemError(
                f"The function table does not give function {function_id.hex()}: {reason}"
            )
        try:
            return loads(answer.data)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"{error}. The worker could not import what the function needs: install it on every node, or define "
                "the function in the script itself",
                name=error.name,
                path=error.path,
            ) from error

    def ensure_job(self, job_id: bytes) -> None:
        """Take on the job's settings before its first code runs here. Raises: ShoalSystemError, RuntimeEnvSetupError
        when the environment's hook has failed."""
        core = self._core
        if self._spoilt is not None:
            raise self._spoilt
        if core.job_id == job_id:
            return
        core.set_job(job_id)
        answer = self._ask(job_settings.key(job_id))
        if answer is None or answer.error:
            raise exceptions.ShoalSystemError("The settings of the job are not in the function table")
        settings = job_settings.decode(answer.data)
        core.namespace = settings.namespace
        core.job_name = settings.job_name
        core.default_actor_lifetime = settings.default_actor_lifetime
        core.job_weight = settings.weight
        core.job_quota = job_settings.quota_of(settings.max_resources)
        core.task_events_enabled = settings.task_events
        core.lineage.max_bytes = settings.max_lineage_bytes
        own = _context.process.import_paths
        first = max((at + 1 for at, path in enumerate(sys.path) if path in own), default=0)
        for path in map(os.fsdecode, reversed(settings.sys_path)):
            if path in sys.path:
                continue
            if _context.process.runtime_env and os.path.basename(path) in ("site-packages", "dist-packages"):
                sys.path.append(path)  # what the environment has installed comes first
            else:
                sys.path.insert(first, path)
        if settings.logging is not None:
            _structured_logs.install(settings.logging)
        if settings.tracing_startup_hook:
            with self._spoiling("_tracing_startup_hook"):
                _tracing.set_up(settings.tracing_startup_hook, job_id, core.node_id, core.worker_id)
        hook = runtime_env.decode(_context.process.runtime_env).get("worker_process_setup_hook")
        if hook is not None:
            with self._spoiling("worker_process_setup_hook"):
                _hook_of(hook)()

    @contextmanager
    def _spoiling(self, name: str) -> Iterator[None]:
        """What is raised within is why nothing can run here. Raises: RuntimeEnvSetupError."""
        try:
            yield
        except Exception as error:
            told = "".join(traceback.format_exception(error)).strip()
            self._spoilt = exceptions.RuntimeEnvSetupError(f"{name} failed:\n{told}")
            raise self._spoilt from error

    def _ask(self, key: bytes) -> frames.FunctionData | None:
        """None = this node's raylet has ended: it waits for a GCS while there is none, as long as it lives without."""
        core = self._core
        answers = core.questions.ask([core.node_id], lambda number: frames.FunctionGet(number, key))
        return answers[0] if answers else None


def _hook_of(hook: Any) -> Callable[[], object]:
    """``hook``: as the document of an environment has it. Raises: whatever loading it does."""
    pickled = runtime_env.hook_bytes(hook)
    if pickled is not None:
        function: Callable[[], object] = loads(pickled)
        return function
    module, _, name = hook.rpartition(".")
    function = getattr(importlib.import_module(module), name)
    return function
