"""Spans into files: ``_tracing_startup_hook="shoal.util.tracing.setup_local_tmp_tracing:setup_tracing"``."""

from __future__ import annotations

import os
from pathlib import Path

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

__all__ = ["setup_tracing"]


def setup_tracing() -> None:
    """JSON, a span a line, in ``/tmp/spans/<pid>.txt``, of SHOAL_SPANS_DIRECTORY if there is one."""
    directory = Path(os.environ.get("SHOAL_SPANS_DIRECTORY", "/tmp/spans"))
    directory.mkdir(parents=True, exist_ok=True)
    out = (directory / f"{os.getpid()}.txt").open("a")
    exporter = ConsoleSpanExporter(out=out, formatter=lambda span: span.to_json(indent=None) + os.linesep)
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
