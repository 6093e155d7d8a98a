from __future__ import annotations

import subprocess
import sys

import pytest


def test_what_must_start_quickly_or_fork_does_not_bring_grpc() -> None:
    program = """
import sys
import shoal_common
from shoal_common import auth, errors, ids, worker_launch
from shoal_common.channel import frames
from shoal_common.channel import handshake
from shoal_common.service import healthcheck
from shoal_common.placement import resources
from shoal_common.rpc import retry
print(sorted(name for name in ("grpc", "structlog", "google.protobuf", "asyncio") if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("first", ["import shoal_raylet.__main__", "import shoal_gcs.__main__"])
def test_services_do_not_bring_what_colours_tracebacks(first: str) -> None:
    program = f"{first}; import sys; print('rich' in sys.modules); import rich"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
