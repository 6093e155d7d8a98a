"""``python -m shoal_gcs``: the GCS as a process of its own."""

from __future__ import annotations

import sys

import shoal_common.service.structlog_alone  # noqa: F401
from shoal_common.service.lifecycle import main
from shoal_gcs.config import GcsConfig
from shoal_gcs.replica import GcsReplica

if __name__ == "__main__":
    sys.exit(main(GcsConfig, GcsReplica))
