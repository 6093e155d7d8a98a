"""What the dashboard is told at its start."""

# ruff: noqa: RUF009 - setting() makes a dataclass field
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from shoal_common.bus.connect import BusConfig
from shoal_common.dashboard_place import PORT
from shoal_common.service.config import setting


@dataclass(frozen=True, kw_only=True)
class DashboardConfig(BusConfig):
    """The dashboard: what the cluster does, as pages and over HTTP."""

    SERVICE: ClassVar[str] = "dashboard"

    port: int = setting(PORT, doc="port to listen on; 0 takes a free one", minimum=0, maximum=65535)
    port_retries: int = setting(0, doc="ports above it that are tried when it is taken", minimum=0, maximum=1000)
    gcs_address: str = setting(
        doc="host:port of each GCS, separated by commas; it need not be there yet when the dashboard starts"
    )
    driver_address: str = setting(
        "",
        doc="where the process that makes supervisors of submitted jobs attaches as a driver, shoal://host:port of a "
        "gateway; empty = gcs_address, whose cluster has a node on this machine",
    )
    public_url: str = setting(
        "", doc="URL by which others reach the dashboard, told to the cluster; empty = where it listens"
    )
    https_cert: Path | None = setting(
        None,
        doc="PEM file of the certificate that browsers are shown, its chain included; empty = that of SHOAL_TLS_CERT, "
        "without one HTTP in the clear",
    )
    https_key: Path | None = setting(None, doc="PEM file of its key")
    data_dir: Path | None = setting(
        None, doc="directory of what is recorded of tasks; empty = a temporary one, which goes with the dashboard"
    )
    ends_with: int = setting(0, doc="pid of a process with which the dashboard ends; 0 = none", minimum=0)

    @property
    def certificate(self) -> tuple[Path, Path] | None:
        """Certificate and key for HTTPS; None = HTTP."""
        if self.https_cert is not None and self.https_key is not None:
            return self.https_cert, self.https_key
        return (self.tls.cert, self.tls.key) if self.tls is not None else None
