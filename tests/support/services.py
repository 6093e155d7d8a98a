"""A service as a process of its own, for asyncio tests."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


@asynccontextmanager
async def started(
    service: str, token_path: Path, **flags: object
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """``python -m shoal_<service>`` and its address, once it says that it listens. SIGKILL to it at the end."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"shoal_{service}"),
        *(f"--{name.replace('_', '-')}={value}" for name, value in flags.items()),
        env={**os.environ, "SHOAL_AUTH_TOKEN_PATH": str(token_path)},
        stderr=asyncio.subprocess.PIPE,
    )
    assert child.stderr is not None
    try:
        address = ""
        async with asyncio.timeout(60):
            while not address:
                said = json.loads(await child.stderr.readline())
                address = said["address"] if said["event"] == "service_started" else ""
        yield child, address
    finally:
        if child.returncode is None:
            child.kill()
        await child.stderr.read()
        await child.wait()
