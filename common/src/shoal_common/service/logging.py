"""Structured logs of the services: JSON lines, or colours on a terminal.

Only a process of ours calls `configure`: the SDK is a guest in a user's program and leaves its logging alone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import TextIO, cast

import structlog

#: Without the frames' local variables: among them are tokens and users' data.
_traceback = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)


class _Unfailing:
    """A full disk must not stop a service: what the stream does not take is not logged."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def configure(service: str, level: str = "info", stream: TextIO | None = None) -> None:
    """Set up structlog and the standard library's logging, both into ``stream`` (standard error by default).

    Every line carries ``service`` and the bound context variables. What goes through the standard
    library's logging (asyncio, the adapters of this package) comes out in the same form.
    """
    stream = stream or sys.stderr or open(os.devnull, "w")  # noqa: SIM115 - as long as the process
    pretty = stream.isatty()
    stream = cast(TextIO, _Unfailing(stream))

    def add_service(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event.setdefault("service", service)
        return event

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_service,
    ]
    rendering: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(colors=True, exception_formatter=structlog.dev.plain_traceback)]
        if pretty
        else [structlog.processors.ExceptionRenderer(_traceback), structlog.processors.JSONRenderer()]
    )
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(number)
