"""``python -m shoal.job_submission.starter``: makes supervisors of submitted jobs, as a driver of the cluster.

The dashboard runs it as a child and speaks JSON with it, a line each: first ``{"address", "token"}``, then
``{"start": submission_id, "request": {...}}`` and ``{"kill": submission_id}``. It answers ``{"started": id}`` or
``{"failed": id, "error_type", "message"}`` once a supervisor begins or cannot; that may take as long as resources are
missing. Supervisors are detached: they outlive this process, which ends with its standard input.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from typing import Any

import shoal
from shoal import exceptions
from shoal.job_submission.details import NAMESPACE, JobErrorType
from shoal.job_submission.supervisor import JobSupervisor
from shoal_common.auth import TOKEN_VARIABLE

#: How often those that are being made are looked at, in seconds, while nothing comes in.
_LOOK_EVERY_S = 0.1


def main() -> None:
    hello = json.loads(sys.stdin.readline())
    os.environ[TOKEN_VARIABLE] = hello["token"]
    try:
        shoal.init(hello["address"], namespace=NAMESPACE, log_to_driver=False, configure_logging=False)
    except (ConnectionError, exceptions.AuthenticationError, exceptions.ShoalError) as error:
        sys.exit(str(error))
    del os.environ[TOKEN_VARIABLE]
    wanted: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(wanted,), daemon=True).start()
    starter = _Starter()
    while True:
        try:
            message = wanted.get(timeout=_LOOK_EVERY_S) if starter.making else wanted.get()
        except queue.Empty:
            pass
        else:
            if message is None:
                break
            starter.handle(message)
        starter.look()
    shoal.shutdown()


def _read(wanted: queue.SimpleQueue[dict[str, Any] | None]) -> None:
    for line in sys.stdin:
        wanted.put(json.loads(line))
    wanted.put(None)


class _Starter:
    def __init__(self) -> None:
        #: What tells that a supervisor has been made, and whose.
        self.making: dict[shoal.ObjectRef[Any], tuple[str, Any]] = {}

    def handle(self, message: dict[str, Any]) -> None:
        if "kill" in message:
            self._kill(message["kill"])
            return
        submission_id, request = message["start"], message["request"]
        try:
            options = _options(submission_id, request)
            supervisor: Any = shoal.remote(JobSupervisor).options(**options).remote(submission_id)
            self.making[supervisor.ready.remote()] = submission_id, supervisor
        except (ValueError, TypeError, exceptions.ShoalError) as error:
            _failed(submission_id, error)

    def look(self) -> None:
        if not self.making:
            return
        made, _ = shoal.wait(list(self.making), num_returns=len(self.making), timeout=0)
        for ref in made:
            submission_id, _supervisor = self.making.pop(ref)
            try:
                shoal.get(ref)
            except exceptions.ShoalError as error:
                _failed(submission_id, error)
            else:
                _answer({"started": submission_id})

    def _kill(self, submission_id: str) -> None:
        try:
            shoal.kill(shoal.get_actor(_name(submission_id), namespace=NAMESPACE))
        except (ValueError, exceptions.ShoalError):
            return  # it was never made, or is gone


def _options(submission_id: str, request: dict[str, Any]) -> dict[str, Any]:
    options = {
        "name": _name(submission_id),
        "namespace": NAMESPACE,
        "lifetime": "detached",
        "get_if_exists": True,
        # Whether the program is tried again is the GCS's to say, attempt by attempt.
        "max_restarts": -1,
        "num_cpus": request.get("entrypoint_num_cpus") or 0,
        "num_gpus": request.get("entrypoint_num_gpus"),
        "memory": request.get("entrypoint_memory"),
        "resources": request.get("entrypoint_resources"),
        "label_selector": request.get("entrypoint_label_selector"),
        "runtime_env": request.get("runtime_env") or None,
    }
    return {name: value for name, value in options.items() if value is not None}


def _name(submission_id: str) -> str:
    return f"job-supervisor:{submission_id}"


def _failed(submission_id: str, error: Exception) -> None:
    kind = JobErrorType.JOB_SUPERVISOR_ACTOR_START_FAILURE
    if isinstance(error, exceptions.RuntimeEnvSetupError):
        kind = JobErrorType.RUNTIME_ENV_SETUP_FAILURE
    elif isinstance(error, exceptions.ActorUnschedulableError):
        kind = JobErrorType.JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE
    _answer({"failed": submission_id, "error_type": kind.value, "message": str(error)})


def _answer(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
