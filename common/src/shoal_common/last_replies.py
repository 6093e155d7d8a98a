"""Where a worker leaves the replies that it holds back, to be found should it die: what its raylet must know of it."""

from __future__ import annotations

import os

#: Of the file. A millisecond's replies of the shortest calls take some 5 KiB.
SIZE = 64 * 1024


def path_of(session_dir: str, worker_id: bytes) -> str:
    return os.path.join(session_dir, "sockets", f"w-{worker_id.hex()[:16]}.replies")
