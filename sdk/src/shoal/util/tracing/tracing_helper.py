"""For code that carries a trace itself, into threads of its own or other programs; names as in Ray."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from shoal import _tracing

__all__: list[str] = []

_import_from_string = _tracing.import_from_string


def _is_tracing_enabled() -> bool:
    """Whether calls of this process have spans."""
    return _tracing.active is not None


class _DictPropagator:
    """A trace's context as a dictionary of headers."""

    @staticmethod
    def inject_current_context() -> dict[str, str]:
        from opentelemetry import propagate

        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        return carrier

    @staticmethod
    def extract(context_dict: dict[str, str]) -> Any:
        from opentelemetry import propagate

        return propagate.extract(context_dict)


@contextmanager
def _use_context(parent_context: Any) -> Iterator[None]:
    """Within it, new spans and calls belong to that context; None = to a trace of their own."""
    from opentelemetry import context

    token = context.attach(context.Context() if parent_context is None else parent_context)
    try:
        yield
    finally:
        context.detach(token)
