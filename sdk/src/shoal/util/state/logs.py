"""What tasks, actors, workers and jobs have printed, told by the dashboard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast
from urllib.parse import urlencode

from shoal._net.dashboard import DashboardClient, DashboardError
from shoal._session.dashboards import dashboard_client
from shoal.util.state.common import DEFAULT_RPC_TIMEOUT
from shoal.util.state.exception import RayStateApiException, ServerUnavailable

#: Lines without ``tail``, as in Ray.
DEFAULT_LOG_LIMIT = 1000


def get_log(
    address: str | None = None,
    node_id: str | None = None,
    node_ip: str | None = None,
    filename: str | None = None,
    actor_id: str | None = None,
    task_id: str | None = None,
    pid: int | None = None,
    follow: bool = False,
    tail: int = DEFAULT_LOG_LIMIT,
    timeout: float = DEFAULT_RPC_TIMEOUT,
    suffix: str = "out",
    encoding: str | None = "utf-8",
    errors: str | None = "strict",
    submission_id: str | None = None,
    attempt_number: int = 0,
    _interval: float | None = None,
    filter_ansi_code: bool | None = False,
) -> Iterator[Any]:
    """Pieces of a log: of a task's attempt, an actor, a worker by its pid, a submitted job, or a file of a node.

    ``tail``: the last lines, -1 = all. ``follow``: also what comes later, until the worker has ended; then ``timeout``,
    in seconds, is for each piece. ``suffix``: "out" or "err". ``encoding`` None: bytes. ``_interval`` is Ray's, and of
    no consequence here: what is new is told at once.

    Raises: RayStateApiException (no such log), ServerUnavailable.
    """
    given = {
        "node_id": node_id,
        "node_ip": node_ip,
        "filename": filename,
        "actor_id": actor_id,
        "task_id": task_id,
        "pid": pid,
        "lines": tail,
        "suffix": suffix,
        "submission_id": submission_id,
        "attempt_number": attempt_number,
        "filter_ansi_code": str(bool(filter_ansi_code)).lower(),
    }
    client = _client(address)
    try:
        if submission_id is not None:
            yield _of_job(client, submission_id, tail, timeout, encoding)
            return
        query = urlencode({name: value for name, value in given.items() if value is not None})
        for piece in client.stream(f"api/v0/logs/{'stream' if follow else 'file'}?{query}", timeout):
            yield piece if encoding is None else piece.decode(encoding, errors or "strict")
    except DashboardError as error:
        raise RayStateApiException(error.message) from None
    except ConnectionError as error:
        raise ServerUnavailable(str(error)) from None


def _of_job(client: DashboardClient, submission_id: str, tail: int, timeout: float, encoding: str | None) -> Any:
    lines: str = client.get(f"api/jobs/{submission_id}/logs", timeout)["logs"]
    text = lines if tail < 0 else "".join(lines.splitlines(keepends=True)[-tail:] if tail else [])
    return text if encoding is not None else text.encode()


def list_logs(
    address: str | None = None,
    node_id: str | None = None,
    node_ip: str | None = None,
    glob_filter: str | None = None,
    timeout: int = DEFAULT_RPC_TIMEOUT,
) -> dict[str, list[str]]:
    """Names of a node's log files by kind ("worker_out", "worker_err", "raylet" ...). ``glob_filter``: as in a shell.

    Raises: RayStateApiException, ServerUnavailable.
    """
    if node_id is None and node_ip is None:
        raise ValueError("say which node: node_id or node_ip")
    given = {"node_id": node_id, "node_ip": node_ip, "glob": glob_filter or "*"}
    query = urlencode({name: value for name, value in given.items() if value is not None})
    try:
        answer = _client(address).get(f"api/v0/logs?{query}", timeout)
    except DashboardError as error:
        reason = error.message.partition(": ")[2]
        raise RayStateApiException(json.loads(reason)["msg"] if reason.startswith("{") else error.message) from None
    except ConnectionError as error:
        raise ServerUnavailable(str(error)) from None
    return cast(dict[str, list[str]], answer["data"]["result"])


def _client(address: str | None) -> DashboardClient:
    try:
        return dashboard_client(address)
    except ConnectionError as error:
        raise ServerUnavailable(str(error)) from None
