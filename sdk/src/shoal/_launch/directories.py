"""Where this user's sessions, nodes and test clusters have their files on this machine.

Below one root directory: a session has ``session_<time>_<pid>_<random>``, with its address in ``cluster.json``, which
only this user can read: that is how ``init(address=...)`` finds the token. A node has ``node_<random>``
(``local_nodes``), a `shoal.cluster_utils.Cluster` ``cluster_<random>`` with its nodes in it, the dashboard of a command
``dashboard_<time>_<pid>_<random>``; that of a session or node has its files in there.
"""

from __future__ import annotations

import functools
import logging
import os
import secrets
import shutil
import time
from pathlib import Path

logger = logging.getLogger("shoal")

#: A Unix socket's path has 107 bytes; what lies below the root directory needs 66 of them.
MAX_ROOT_BYTES = 40
#: Names the directory that has the root directory in it; TMPDIR does for all programs.
TMPDIR_VARIABLE = "SHOAL_TMPDIR"


def root_directory(temp_dir: str | None = None) -> Path:
    """``temp_dir``, else ``shoal-<uid>`` in SHOAL_TMPDIR, in TMPDIR, or in /tmp, with a warning if TMPDIR will not do.

    Raises: ValueError (one of the first two will not do: it must be absolute, short and UTF-8), PermissionError
    (somebody else made it).
    """
    root = _root(temp_dir)
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    if root.stat().st_uid != os.getuid():
        raise PermissionError(f"{root} belongs to another user: give init(_temp_dir=...) a directory of your own")
    return root


def _root(temp_dir: str | None) -> Path:
    own = f"shoal-{os.getuid()}"
    if temp_dir:
        return _usable("_temp_dir", Path(temp_dir))
    if base := os.environ.get(TMPDIR_VARIABLE):
        return _usable(TMPDIR_VARIABLE, Path(base, own))
    # Not tempfile.gettempdir(): once the disk is full that is another directory, and nothing that runs would be found.
    root = Path(os.environ.get("TMPDIR") or "/tmp", own)
    if problem := _problem(root):
        instead = Path("/tmp", own)
        _say_once(
            f"TMPDIR is not used, as the directory in it {problem}: {str(root)!r}. Files are in {instead} instead"
        )
        return instead
    return root


@functools.cache
def _say_once(warning: str) -> None:
    logger.warning("%s", warning)


def _usable(name: str, root: Path) -> Path:
    if problem := _problem(root):
        raise ValueError(f"{name} {problem}: {str(root)!r}")
    return root


def _problem(root: Path) -> str:
    """Why it cannot be the root directory; "" if it can."""
    if not root.is_absolute():
        return "must be an absolute path"
    try:
        size = len(str(root).encode())
    except UnicodeEncodeError:
        return "must be UTF-8, since it travels in messages"
    if size > MAX_ROOT_BYTES:
        return f"must have at most {MAX_ROOT_BYTES} bytes, since the paths of Unix sockets are short, and has {size}"
    return ""


def new_session_directory(temp_dir: str | None) -> Path:
    """A private one for this driver; those of drivers that are dead are removed. Raises: as ``root_directory``."""
    root = root_directory(temp_dir)
    # A driver and its head were killed at the same time.
    _remove_dead(root, "session")
    return _new(root, "session")


def new_dashboard_directory() -> Path:
    """For what the dashboard of this command keeps; those of commands that are dead are removed. Raises: as
    ``root_directory``."""
    remove_dead_dashboards()
    return _new(root_directory(), "dashboard")


def remove_dead_dashboards() -> None:
    """What is left of those whose commands were killed. Raises: as ``root_directory``."""
    _remove_dead(root_directory(), "dashboard")


def driver_lives(session: Path) -> bool:
    """Of a session's directory."""
    pid = session.name.split("_")[2]
    return Path(f"/proc/{pid}").exists()


def _new(root: Path, kind: str) -> Path:
    """Of this process."""
    directory = root / f"{kind}_{time.strftime('%Y%m%d-%H%M%S')}_{os.getpid()}_{secrets.token_hex(3)}"
    directory.mkdir(mode=0o700)
    return directory


def _remove_dead(root: Path, kind: str) -> None:
    for directory in root.glob(f"{kind}_*_*_*"):
        if not driver_lives(directory):
            shutil.rmtree(directory, ignore_errors=True)


def new_cluster_directory() -> Path:
    """For the nodes of a cluster that is made for tests. Raises: as ``root_directory``."""
    directory = root_directory() / f"cluster_{secrets.token_hex(4)}"
    directory.mkdir(mode=0o700)
    return directory
