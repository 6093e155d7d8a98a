"""The runtime environment of what is submitted: what its options say, on top of what this process runs in itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shoal import _context, _current
from shoal._session.packages import uploaded
from shoal_common.placement import runtime_env


def document_of(given: Mapping[str, Any] | None) -> str:
    """``given``: the option; what it names of this machine is uploaded. Raises: ValueError (both together are too
    large), as ``uploaded``."""
    inherited = _context.process.runtime_env
    if not given:
        return inherited
    return runtime_env.encode(runtime_env.merged(runtime_env.decode(inherited), uploaded(_current.connected(), given)))
