"""Spans where OpenTelemetry's own variables say: what traces calls when the driver has OTEL_TRACES_EXPORTER.

    OTEL_TRACES_EXPORTER=otlp OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4317 python program.py

The workers read the same variables, so they are set where nodes are started, or in ``runtime_env["env_vars"]``.
"""

from __future__ import annotations

import os
from importlib.metadata import entry_points

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

__all__ = ["setup_tracing"]


def setup_tracing() -> None:
    """The exporters of OTEL_TRACES_EXPORTER, in batches; nothing where the program has set OpenTelemetry up itself.

    Raises: ImportError, where no package that is installed has such an exporter.
    """
    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return
    provider = TracerProvider()
    for name in filter(None, map(str.strip, os.environ.get("OTEL_TRACES_EXPORTER", "none").split(","))):
        if name == "none":
            continue
        found = tuple(entry_points(group="opentelemetry_traces_exporter", name=name))
        if not found:
            raise ImportError(
                f"OTEL_TRACES_EXPORTER={name}: no exporter of that name is installed. For otlp: "
                "pip install opentelemetry-exporter-otlp"
            )
        provider.add_span_processor(BatchSpanProcessor(found[0].load()()))
    trace.set_tracer_provider(provider)
