"""How a driver starts its embedded cluster: the contract between ``shoal`` and ``shoal_head``.

The driver runs ``python -m shoal_head --config-fd N --ready-fd M``: a ``HeadConfig`` document on N (JSON, read to the
end of the file), and on M one line, a ``HeadReady``. The token travels in the private descriptor only.
"""

from __future__ import annotations

import msgspec


class HeadConfig(msgspec.Struct, frozen=True):
    """What ``shoal.init()`` asks for. Amounts are in units and bytes."""

    token: str
    session_name: str
    session_dir: str
    driver_pid: int
    resources: dict[str, float]
    object_store_bytes: int
    labels: dict[str, str] = {}
    spill_dir: str = ""
    #: The settings of ``init(_system_config=...)``, all of them.
    settings: dict[str, float] = {}
    #: Where Prometheus reads; 0 = a free port.
    metrics_port: int = 0
    log_level: str = "warning"

    def __repr__(self) -> str:
        return f"HeadConfig(session_name={self.session_name!r})"  # the token stays out of every message


class HeadReady(msgspec.Struct, frozen=True):
    """Where the services of a started head are, or why there are none."""

    gcs_address: str = ""
    raylet_path: str = ""
    raylet_address: str = ""
    node_id: str = ""
    error: str = ""
