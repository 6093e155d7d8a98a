"""What is asked about logs, in Ray's words, and what that means here. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shoal_proto.v1 import gcs_pb2 as pb
from shoal_proto.v1 import raylet_pb2

#: Lines without ``lines``, as in Ray, and at most when they are the last ones.
_LINES = 1000
MAX_LINES = 100_000
#: Nodes that are gone, in whose logs a task or an actor is looked for.
MAX_GONE = 50
#: Ray's names for kinds of files: endings of ours.
_GROUPS = (("worker_out", ".out"), ("worker_err", ".err"))
_SERVICES = {"raylet.log": "raylet", "gcs.log": "gcs_server", "dashboard.log": "dashboard"}


class QueryError(Exception):
    """The question makes no sense; the message says why."""


@dataclass(frozen=True, slots=True)
class LogQuery:
    #: Ids in hexadecimal; empty = not named.
    node_id: str = ""
    node_ip: str = ""
    filename: str = ""
    actor_id: str = ""
    task_id: str = ""
    submission_id: str = ""
    #: 0 = not named.
    pid: int = 0
    #: Of the task, from 0 on.
    attempt: int = 0
    #: The last ones; 0 = all.
    lines: int = _LINES
    stderr: bool = False
    follow: bool = False
    without_colours: bool = False
    json: bool = False
    download_name: str = "file.txt"


def parse(given: Mapping[str, str], media_type: str) -> LogQuery:
    """Raises: QueryError."""
    if media_type not in ("file", "stream"):
        raise QueryError(f"{media_type!r} is neither file nor stream")
    lines = _whole(given, "lines", _LINES)
    if not (lines == -1 or 0 <= lines <= MAX_LINES):
        raise QueryError(f"lines={lines}: ask for up to {MAX_LINES} of the last lines, or for all with -1")
    suffix = given.get("suffix", "out")
    if suffix not in ("out", "err"):
        raise QueryError(f"suffix={suffix!r} is neither out nor err")
    query = LogQuery(
        node_id=given.get("node_id", "").lower(),
        node_ip=given.get("node_ip", ""),
        filename=given.get("filename", ""),
        actor_id=given.get("actor_id", "").lower(),
        task_id=given.get("task_id", "").lower(),
        submission_id=given.get("submission_id", ""),
        pid=_whole(given, "pid", 0),
        attempt=_whole(given, "attempt_number", 0),
        lines=max(lines, 0),
        stderr=suffix == "err",
        follow=media_type == "stream",
        without_colours=given.get("filter_ansi_code", "").lower() == "true",
        json=given.get("format", "") == "json",
        download_name="".join(c for c in given.get("download_filename", "file.txt") if c.isalnum() or c in "._-"),
    )
    named = [query.filename, query.actor_id, query.task_id, query.submission_id, query.pid]
    if not any(named):
        raise QueryError("say whose log: filename, actor_id, task_id, submission_id or pid")
    if query.filename and not (query.node_id or query.node_ip):
        raise QueryError("a file is on a node: say node_id or node_ip, too")
    return query


def _whole(given: Mapping[str, str], name: str, default: int) -> int:
    text = given.get(name, "")
    if not text:
        return default
    try:
        return int(text)
    except ValueError:
        raise QueryError(f"{name}={text!r} is no whole number") from None


def nodes_to_ask(nodes: Sequence[pb.NodeInfo], node_id: str, node_ip: str) -> list[pb.NodeInfo]:
    """Those that live and may have it. Raises: QueryError when there is none."""
    living = [node for node in nodes if node.state != pb.NODE_STATE_DEAD]
    if node_id:
        living = [node for node in living if node.node_id.hex() == node_id]
    elif node_ip:
        living = [node for node in living if node.host == node_ip]
    if not living:
        raise QueryError(f"no node that lives is {node_id or node_ip or 'there'}")
    return living


def gone_nodes(nodes: Sequence[pb.NodeInfo], node_id: str, node_ip: str) -> list[pb.NodeInfo]:
    """Those that may have had it, the last one that has left first."""
    gone = [node for node in nodes if node.state == pb.NODE_STATE_DEAD]
    gone = [node for node in gone if node_id in ("", node.node_id.hex()) and node_ip in ("", node.host)]
    return sorted(gone, key=lambda node: -node.end_unix_ms)[:MAX_GONE]


def request(query: LogQuery, filename: str) -> raylet_pb2.ReadLogRequest:
    """``filename``: of a worker that was found; empty = the raylet looks for the task or actor."""
    return raylet_pb2.ReadLogRequest(
        file=filename,
        task_id=query.task_id,
        attempt=query.attempt + 1 if query.task_id else 0,
        actor_id=query.actor_id,
        last_lines=query.lines,
        follow=query.follow,
        json=query.json,
        stderr=query.stderr,
    )


def worker_file(worker_id: bytes, stderr: bool) -> str:
    return f"worker-{worker_id.hex()}.{'err' if stderr else 'out'}"


def grouped(names: Sequence[str]) -> dict[str, list[str]]:
    """By Ray's names for kinds of log files."""
    groups: dict[str, list[str]] = {}
    for name in names:
        ending = next((group for group, end in _GROUPS if name.startswith("worker-") and name.endswith(end)), "")
        groups.setdefault(_SERVICES.get(name) or ending or "internal", []).append(name)
    return groups
