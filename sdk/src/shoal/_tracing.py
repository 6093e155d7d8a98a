"""OpenTelemetry spans of tasks and actor calls: one trace from the driver through all that its calls submit in turn.

Off (``active`` is None) until a hook has set OpenTelemetry up in this process: then a call costs a look or two. What
becomes of the spans is up to the hook. Needs the package opentelemetry-api.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
from collections.abc import Callable
from typing import Any

logger = logging.getLogger("shoal")

#: Where nothing else is said and OTEL_TRACES_EXPORTER names an exporter.
FROM_ENVIRONMENT = "shoal.util.tracing.setup_from_environment:setup_tracing"
#: What has ended is given so long to get out before the process ends, in milliseconds.
FLUSH_MS = 1000

#: The W3C's headers of a span, by which the next process goes on with its trace.
Carrier = dict[str, str]


class Tracing:
    """Of this process, once a hook has set it up."""

    def __init__(self, job_id: bytes, node_id: bytes, worker_id: bytes) -> None:
        from opentelemetry import context, propagate, trace

        self.context, self.propagate, self.trace = context, propagate, trace
        self.tracer = trace.get_tracer("shoal")
        self._process = {
            "shoal.job_id": job_id.hex(),
            "shoal.node_id": node_id.hex(),
            "shoal.worker_id": worker_id.hex(),
            "process.pid": os.getpid(),
        }

    def submitted(self, name: str, task_id: bytes) -> Carrier:
        """The span of submitting a call, for the process that runs it."""
        span = self.tracer.start_span(
            f"{name} shoal.remote", kind=self.trace.SpanKind.PRODUCER, attributes=self._attributes(name, task_id)
        )
        carrier: Carrier = {}
        self.propagate.inject(carrier, self.trace.set_span_in_context(span))
        span.end()
        return carrier

    def _attributes(self, name: str, task_id: bytes) -> dict[str, Any]:
        return {**self._process, "shoal.function": name, "shoal.task_id": task_id.hex()}


class Running:
    """The span of a call that runs in this thread or coroutine, in whose context its code is."""

    def __init__(self, tracing: Tracing, carrier: Carrier, name: str, task_id: bytes, attempt: int) -> None:
        self._tracing = tracing
        parent = tracing.propagate.extract(carrier)
        attributes = {**tracing._attributes(name, task_id), "shoal.attempt": attempt}
        kind = tracing.trace.SpanKind.CONSUMER
        self._span = tracing.tracer.start_span(f"{name} shoal.remote_worker", parent, kind, attributes)
        self._token = tracing.context.attach(tracing.trace.set_span_in_context(self._span, parent))

    def end(self, error: BaseException | None = None) -> None:
        self._tracing.context.detach(self._token)
        if error is not None:
            self._span.record_exception(error)
            status = self._tracing.trace.StatusCode.ERROR
            self._span.set_status(status, f"{type(error).__name__}: {error}")
        self._span.end()


active: Tracing | None = None


def begin(carrier: Carrier, name: str, task_id: bytes, attempt: int) -> Running | None:
    """None = this process takes no part."""
    return Running(active, carrier, name, task_id, attempt) if active is not None else None


def set_up(hook: str, job_id: bytes, node_id: bytes, worker_id: bytes) -> None:
    """Call a hook ("module:function") which sets OpenTelemetry up; from now on calls have spans.

    Raises: ImportError, ValueError (not of that form, or nothing of that name), whatever the hook raises.
    """
    function: Callable[[], object] = import_from_string(hook)
    try:
        importlib.import_module("opentelemetry.propagate")
    except ImportError as error:
        raise ImportError(f"{error}. Tracing needs OpenTelemetry: pip install 'shoal[tracing]'") from error
    function()
    global active
    active = Tracing(job_id, node_id, worker_id)


def hook_of_driver(given: str | None) -> str:
    """The hook that a driver is told by its argument or environment; empty = none."""
    if given:
        return given
    if os.environ.get("OTEL_TRACES_EXPORTER", "none") == "none":
        return ""
    if importlib.util.find_spec("opentelemetry") is None or importlib.util.find_spec("opentelemetry.sdk") is None:
        logger.warning("OTEL_TRACES_EXPORTER is set, but calls are not traced: pip install 'shoal[tracing]'")
        return ""
    return FROM_ENVIRONMENT


def import_from_string(text: str) -> Any:
    """Raises: ImportError, ValueError."""
    module, _, name = text.partition(":")
    if not module or not name:
        raise ValueError(f'{text!r} must be in format "<module>:<attribute>".')
    found = importlib.import_module(module)
    try:
        for part in name.split("."):
            found = getattr(found, part)
    except AttributeError:
        raise ValueError(f"Attribute {name!r} not found in module {module!r}.") from None
    return found


def turn_off() -> None:
    global active
    flush()
    active = None


def flush() -> None:
    """What has ended so far gets out, if it does so soon."""
    if active is not None:
        force = getattr(active.trace.get_tracer_provider(), "force_flush", None)  # the SDK's has one
        if force is not None:
            force(FLUSH_MS)
