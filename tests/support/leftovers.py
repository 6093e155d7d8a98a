"""What tests leave on this machine: processes, memory files, temporary files, containers.

Looked at from the process that runs them. It adopts what loses its parent, so that nothing below it is overlooked.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from support.processes import alive, arenas_of, command, descendants, eventually
from support.server_hosts import containers

_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)
#: pytest's own, and what a user's sessions have in common: caches, and a folder with one of each session in it.
_KEPT = "pytest-of-*"
_SESSIONS = "shoal-*"


@dataclass(frozen=True)
class Leftovers:
    """All that is there at one time."""

    processes: frozenset[int]
    #: Inodes of memory files that this process maps.
    arenas: frozenset[int]
    files: frozenset[Path]
    containers: frozenset[str]

    @classmethod
    def now(cls) -> Leftovers:
        here = Path(tempfile.gettempdir())
        # A file may go while it is looked at.
        files = {path for path in here.iterdir() if not path.match(_KEPT) and not path.match(_SESSIONS)}
        files |= set(here.glob(f"{_SESSIONS}/session_*"))
        return cls(
            frozenset(filter(alive, descendants(os.getpid()))),
            frozenset(arenas_of(os.getpid())),
            frozenset(files),
            frozenset(containers()),
        )

    def later(self, shared: Collection[int] = ()) -> list[str]:
        """What there is now and was not then; but what belongs to a cluster that was there, or to these processes:
        workers that it starts as it needs them, and its memory, which this process maps when it needs that."""
        now = self.now()
        clusters = {*self.processes, *shared}
        shared = clusters | descendants(*clusters)
        processes = [pid for pid in sorted(now.processes - shared) if alive(pid)]
        arenas = now.arenas - self.arenas
        if arenas:
            arenas -= set().union(*map(arenas_of, filter(alive, shared)))
        return [
            *(f"process {pid} {command(pid)!r}" for pid in processes),
            *(f"memory file {inode}" for inode in sorted(arenas)),
            *(f"file {path}" for path in sorted(now.files - self.files)),
            *(f"container {name}" for name in sorted(now.containers - self.containers)),
        ]


@contextlib.contextmanager
def adopting() -> Iterator[None]:
    """Processes below this one whose parents die become its children instead of init's."""
    assert not _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        for pid in descendants(os.getpid()):
            if not alive(pid):
                with contextlib.suppress(ChildProcessError):  # somebody else's child
                    os.waitpid(pid, os.WNOHANG)


@contextlib.contextmanager
def nothing_left(shared: Collection[int] = ()) -> Iterator[None]:
    """Of what begins here; ``shared`` as they are at the end. Raises: AssertionError, which names what is left."""
    before = Leftovers.now()
    yield
    eventually(lambda: not before.later(shared), lambda: f"nothing is left: {before.later(shared)}")
