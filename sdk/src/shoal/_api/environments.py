"""The runtime environment of what is submitted: what its options say, on top of what this process runs in itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from shoal import _context, _current
from shoal._api.options import ActorOptions, TaskOptions
from shoal._session.packages import RayletUploads, uploaded
from shoal_common.placement import runtime_env

_Options = TypeVar("_Options", TaskOptions, ActorOptions)


def portable(options: _Options) -> _Options:
    """For another process, maybe on another machine, where what they name of this one is not. Raises: as
    ``uploaded``."""
    if not options.runtime_env:
        return options
    return dataclasses.replace(options, runtime_env=uploaded(RayletUploads(_current.connected()), options.runtime_env))


def document_of(given: Mapping[str, Any] | None) -> str:
    """``given``: the option; what it names of this machine is uploaded. Raises: ValueError (both together are too
    large), as ``uploaded``."""
    inherited = _context.process.runtime_env
    if not given:
        return inherited
    return runtime_env.encode(
        runtime_env.merged(runtime_env.decode(inherited), uploaded(RayletUploads(_current.connected()), given))
    )
