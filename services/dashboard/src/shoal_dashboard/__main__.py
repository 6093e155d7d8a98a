"""``python -m shoal_dashboard``: the dashboard as a process of its own."""

from __future__ import annotations

import sys

import shoal_common.service.structlog_alone  # noqa: F401
from shoal_common.service.lifecycle import main
from shoal_dashboard.config import DashboardConfig
from shoal_dashboard.server import DashboardServer

if __name__ == "__main__":
    sys.exit(main(DashboardConfig, DashboardServer))
