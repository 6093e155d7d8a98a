"""Lines of a log file and whose they are. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

from shoal_common import ids
from shoal_common.logs.origins import MARK, Origin, origin_of

_MARK = MARK.encode()
#: No folder, nothing hidden, no control characters.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]*")
_OF_WORKER = re.compile(r"worker-([0-9a-f]{32})\.(out|err)")


def is_log_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def worker_of(name: str) -> bytes:
    """Whose file that is; empty = no worker's."""
    worker = _OF_WORKER.fullmatch(name)
    return bytes.fromhex(worker[1]) if worker is not None else b""


def told_of_file(node_id: bytes, name: str) -> dict[str, str]:
    """The fields of all its lines."""
    worker = _OF_WORKER.fullmatch(name)
    told = {"node_id": node_id.hex(), "file": name}
    if worker is not None:
        told |= {"worker_id": worker[1], "stream": "stderr" if worker[2] == "err" else "stdout"}
    return told


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines; ids in hexadecimal."""

    #: Empty = of every task.
    task_id: str = ""
    #: Of that task, from 0 on; None = of all.
    attempt: int | None = None
    #: Empty = of every actor and of none.
    actor_id: str = ""

    @property
    def everything(self) -> bool:
        return not self.task_id and not self.actor_id

    def takes(self, origin: Origin) -> bool:
        return (
            self.task_id in ("", origin.task_id)
            and self.actor_id in ("", origin.actor_id)
            and (not self.task_id or self.attempt in (None, origin.attempt))
        )


@dataclass(slots=True)
class LineSelection:
    """Takes a file's bytes one piece after the other, and gives the lines that are wanted."""

    wanted: Wanted
    #: None = lines as they were printed; else the fields that each line has as a JSON object, beside its own.
    fields: dict[str, str] | None = None
    _origin: Origin = field(default_factory=Origin)
    _rest: bytes = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Those that are complete now, each with its newline."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [shown for line in lines if (shown := self._show(line)) is not None]

    def end(self) -> list[bytes]:
        """The last one, if it has no newline."""
        rest, self._rest = self._rest, b""
        shown = self._show(rest) if rest else None
        return [] if shown is None else [shown]

    def _show(self, line: bytes) -> bytes | None:
        if line.startswith(_MARK):
            self._origin = origin_of(line[len(_MARK) :].decode(errors="replace"))
            return None
        if not self.wanted.takes(self._origin):
            return None
        if self.fields is None:
            return line + b"\n"
        origin = self._origin
        told = {
            "job_id": _job_of(origin),
            "task_id": origin.task_id,
            "attempt": origin.attempt,
            "actor_id": origin.actor_id,
            "name": origin.name,
        }
        document = {"line": line.decode(errors="replace"), **told, **self.fields}
        return json.dumps({name: value for name, value in document.items() if value != ""}).encode() + b"\n"


def _job_of(origin: Origin) -> str:
    """Which a task's id and an actor's tell."""
    try:
        if origin.actor_id:
            return ids.job_of_actor(bytes.fromhex(origin.actor_id)).hex()
        return ids.job_of(bytes.fromhex(origin.task_id)).hex()
    except ValueError:
        return ""  # somebody has printed such a line himself
