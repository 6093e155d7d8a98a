"""What a job logs with ``LoggingConfig``: each line says who wrote it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from shoal import _context, _current
from shoal.job_config import LoggingConfig

#: What every record has; whatever else is in one was given as ``extra``.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"asctime", "message", "taskName"}


def fields(record: logging.LogRecord, who: Mapping[str, str], further: Sequence[str]) -> dict[str, Any]:
    """Of one line, in their order; ``record`` has its ``asctime`` and ``message``. ``further``: attributes to add."""
    extra = {name: value for name, value in vars(record).items() if name not in _OWN}
    failed = {"exc_text": record.exc_text} if record.exc_text else {}
    return {
        "asctime": record.asctime,
        "levelname": record.levelname,
        "message": record.message,
        "filename": record.filename,
        "lineno": record.lineno,
        **failed,
        **{name: getattr(record, name, None) for name in further},
        **extra,
        **who,
        "timestamp_ns": int(record.created * 1e9),
    }


def as_text(line: Mapping[str, Any]) -> str:
    head = f"{line['asctime']}\t{line['levelname']} {line['filename']}:{line['lineno']} -- {line['message']}"
    shown = ("asctime", "levelname", "message", "filename", "lineno", "exc_text", "timestamp_ns")
    text = " ".join([head, *(f"{name}={value}" for name, value in line.items() if name not in shown)])
    return "\n".join([text, line["exc_text"]]) if "exc_text" in line else text


def who() -> dict[str, str]:
    """The ids and names of what runs here, those that there are."""
    core, task, process = _current.current_or_none(), _context.current_task.get(), _context.process
    if core is None:
        return {}
    found = {
        "job_id": core.job_id.hex(),
        "worker_id": core.worker_id.hex(),
        "node_id": core.node_id.hex(),
        "actor_id": process.actor_id.hex(),
        "actor_name": process.actor_name,
        "task_id": task.task_id.hex() if task is not None else "",
        "task_name": task.task_name if task is not None else "",
        "task_func_name": task.function_name if task is not None else "",
    }
    return {name: value for name, value in found.items() if value}


class _Formatter(logging.Formatter):
    def __init__(self, config: LoggingConfig) -> None:
        super().__init__()
        self._config = config

    def format(self, record: logging.LogRecord) -> str:
        record.message = record.getMessage()
        record.asctime = self.formatTime(record)
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        line = fields(record, who(), self._config.additional_log_standard_attrs)
        return json.dumps(line, default=str) if self._config.encoding == "JSON" else as_text(line)


def install(config: LoggingConfig) -> Callable[[], None]:
    """Have the root logger write so, on standard error; returns what undoes it."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter(config))
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(config.log_level)

    def undo() -> None:
        root.removeHandler(handler)
        root.setLevel(before)

    return undo
