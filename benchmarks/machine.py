"""What the machine and plain Python reach without any framework: the scale to read the figures on."""

from __future__ import annotations

import multiprocessing
import subprocess
import tempfile
from multiprocessing.connection import Connection

import numpy as np
import sweep_programs
from programs import BIG_ARRAY_BYTES, GB, MIB, Step


def _nothing() -> None:
    pass


def pool_one_at_a_time() -> Step:
    pool = multiprocessing.Pool(2)

    def step() -> float:
        for _ in range(20):
            pool.apply(_nothing)
        return 20

    return step


def pool_thousand_at_once() -> Step:
    pool = multiprocessing.Pool(2)

    def step() -> float:
        for result in [pool.apply_async(_nothing) for _ in range(1000)]:
            result.get()
        return 1000

    return step


def _echo(pipe: Connection) -> None:
    while True:
        pipe.send_bytes(pipe.recv_bytes())


def pipe_ping_pong() -> Step:
    """A byte to another process and back: less than any remote call can cost."""
    ours, theirs = multiprocessing.Pipe()
    multiprocessing.Process(target=_echo, args=(theirs,), daemon=True).start()

    def step() -> float:
        for _ in range(100):
            ours.send_bytes(b"x")
            ours.recv_bytes()
        return 100

    return step


def copy_into_faulted_pages() -> Step:
    source = np.ones(BIG_ARRAY_BYTES, dtype=np.uint8)
    target = np.ones_like(source)

    def step() -> float:
        np.copyto(target, source)
        return BIG_ARRAY_BYTES / GB

    return step


def copies(size: int, times: int) -> Step:
    """So many copies of ``size`` bytes, in memory that has been used before."""
    source = np.ones(size, dtype=np.uint8)
    target = np.ones_like(source)

    def step() -> float:
        for _ in range(times):
            np.copyto(target, source)
        return times

    return step


def through_the_disk() -> Step:
    """The bytes that are put into a store which they do not fit into, written to a file and read with ``dd``."""
    total = sweep_programs.SPILLED_OBJECTS * sweep_programs.SPILLED_BYTES

    def step() -> float:
        with tempfile.NamedTemporaryFile(dir="/tmp") as file:
            blocks = ["bs=1M", f"count={total // MIB}"]
            subprocess.run(["dd", "if=/dev/zero", f"of={file.name}", *blocks], check=True, stderr=subprocess.DEVNULL)
            subprocess.run(["dd", f"if={file.name}", "of=/dev/null", *blocks], check=True, stderr=subprocess.DEVNULL)
        return total / GB

    return step
