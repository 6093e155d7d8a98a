"""Handlers of signals wait while the main thread is busy, also in a worker, which is forked from its template."""

from __future__ import annotations

import subprocess
import sys

FORKED = """
import os
from shoal._net import interrupts
child = os.fork()
if not child:
    with interrupts.uncut():
        os._exit(0 if interrupts.busy() else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_what_is_uncut_is_so_after_a_fork() -> None:
    assert subprocess.run([sys.executable, "-c", FORKED], timeout=60).returncode == 0
