"""Arguments of ``init``: which there are, and the settings of an embedded cluster."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from shoal._core.lineage import DEFAULT_MAX_BYTES
from shoal._not_implemented import refuse
from shoal_common.channel.tcp import MAX_PORT

#: What ``init`` takes beside its named arguments; "_" is Ray's sign for what may change. A Redis password has no
#: effect: libraries pass one although Ray has no Redis any more either.
PRIVATE = (
    "_memory",
    "_metrics_export_port",
    "_temp_dir",
    "_system_config",
    "_object_spilling_directory",
    "_redis_password",
    "_tracing_startup_hook",
    "allow_multiple",
)

_NO_ISOLATION = "what the nodes' services need is not reserved for them. Leave it out"
#: Arguments of Ray's ``init`` for what Shoal does not have: the values that ask for nothing, and what to do instead.
NOT_IMPLEMENTED: dict[str, tuple[tuple[Any, ...], str]] = {
    "local_mode": ((False, None), "debug a task with breakpoint(), or call the plain function"),
    "enable_resource_isolation": ((False,), _NO_ISOLATION),
    "system_reserved_cpu": ((None,), _NO_ISOLATION),
    "system_reserved_memory": ((None,), _NO_ISOLATION),
    "_node_ip_address": ((None, "127.0.0.1", "localhost"), "use `shoal start --node-ip-address`"),
    "_node_name": ((None,), "give the node labels"),
    "_driver_object_store_memory": ((None,), "a driver shares its node's store: set object_store_memory"),
    "_redis_username": ((None,), "there is no Redis here. Leave it out"),
    "_plasma_directory": ((None,), "shared memory needs no directory here. Leave it out"),
    "_enable_object_reconstruction": (
        (None, True),
        "lost results are made again unless their tasks have max_retries=0. Leave it out",
    ),
}


def check_implemented(given: Mapping[str, Any]) -> None:
    """Raises: RuntimeError for an argument that Ray has not either, ValueError for what is not implemented."""
    if unknown := sorted(name for name in given if name not in PRIVATE and name not in NOT_IMPLEMENTED):
        raise RuntimeError(f"Unknown keyword argument(s): {', '.join(unknown)}")
    for name, value in given.items():
        if name in NOT_IMPLEMENTED:
            refuse(name, value, *NOT_IMPLEMENTED[name])


def port_given(name: str, value: Any) -> int:
    """0 = none is given. Raises: TypeError, ValueError."""
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a port or None, not {type(value).__name__}")
    if not 0 <= value <= MAX_PORT:
        raise ValueError(f"{name}={value} is not a port, 1 to {MAX_PORT}, or 0 for a free one")
    return value


def directory_given(name: str, value: Any) -> str:
    """Empty = none is given. Raises: TypeError."""
    if value is None:
        return ""
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} must be the path of a directory or None, not {type(value).__name__}")
    return os.fsdecode(value)


#: What ``_system_config`` may set on an embedded cluster, each also by the environment variable SHOAL_<NAME>:
#: name -> (default, least, most). Seconds; a share of the node's memory; bytes. The last one is the driver's and its
#: workers', on any cluster.
SYSTEM_SETTINGS = {
    "infeasible_grace_s": (30.0, -1.0, float("inf")),
    "memory_usage_threshold": (0.95, 0.0, 1.0),
    "store_full_grace_s": (1.0, 0.0, float("inf")),
    "max_lineage_bytes": (float(DEFAULT_MAX_BYTES), 0.0, float("inf")),
}


def system_settings(system_config: dict[str, Any]) -> dict[str, float]:
    """Settings of the embedded services. Raises: ValueError naming the setting and its range, or those there are."""
    if unknown := sorted(map(str, set(system_config) - set(SYSTEM_SETTINGS))):
        raise ValueError(
            f"_system_config: {', '.join(unknown)} mean nothing to Shoal. There are: {', '.join(SYSTEM_SETTINGS)}"
        )
    settings = {}
    for name, (default, least, most) in SYSTEM_SETTINGS.items():
        given = system_config.get(name, os.environ.get(f"SHOAL_{name.upper()}", default))
        try:
            value = float(given)
        except (TypeError, ValueError):
            raise ValueError(f"{name} must be a number, got {given!r}") from None
        if not least <= value <= most:
            raise ValueError(f"{name} must be between {least:g} and {most:g}, got {given!r}")
        settings[name] = value
    return settings
