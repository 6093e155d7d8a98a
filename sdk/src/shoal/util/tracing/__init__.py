"""OpenTelemetry spans of tasks and actor calls, as ``ray.util.tracing``: hooks for ``_tracing_startup_hook``."""
