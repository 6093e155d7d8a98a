from __future__ import annotations

import subprocess
import sys


def test_what_a_forking_process_imports_does_not_bring_grpc() -> None:
    program = """
import sys
import shoal_common
from shoal_common import auth, errors, frames, handshake, ids, resources, retry, worker_launch
print(sorted(name for name in ("grpc", "structlog", "google.protobuf", "asyncio") if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
