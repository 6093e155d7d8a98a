"""The runtime environment of what is submitted: what its options say, on top of what this process runs in itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shoal import _context
from shoal_common.placement import runtime_env


def document_of(given: Mapping[str, Any] | None) -> str:
    """``given``: the option. Raises: ValueError when both together are too large."""
    inherited = _context.process.runtime_env
    if not given:
        return inherited
    return runtime_env.encode(runtime_env.merged(runtime_env.decode(inherited), given))
