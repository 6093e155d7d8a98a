"""``python -m shoal_autoscaler``: the autoscaler as a process of its own."""

from __future__ import annotations

import sys

import shoal_common.service.structlog_alone  # noqa: F401
from shoal_autoscaler.app import AutoscalerApp
from shoal_autoscaler.config import AutoscalerConfig
from shoal_common.service.lifecycle import main

if __name__ == "__main__":
    sys.exit(main(AutoscalerConfig, AutoscalerApp))
