"""The cluster that ``init`` starts for one driver: its head process, and where its files are.

Every session has a directory ``session_<time>_<pid>_<random>`` below the user's root directory, with its
address in ``cluster.json``, which only this user can read: that is how ``init(address=...)`` finds the token.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import select
import shutil
import signal
import socket
import subprocess
import time
import uuid
from pathlib import Path

import msgspec

from shoal_common.head_launch import HeadConfig, HeadReady
from shoal_common.surroundings import environment, interpreter

logger = logging.getLogger("shoal")

#: Where the services listen.
LOOPBACK = "127.0.0.1"
#: The head must be ready after so many seconds, and gone so many after it was told to end.
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 8.0
#: A Unix socket's path has 107 bytes; a session's files need some 65 of them.
MAX_ROOT_LENGTH = 40
#: What ``shoal[local]`` installs.
_SERVICES = ("shoal_head", "shoal_gcs", "shoal_scheduler", "shoal_raylet", "shoal_objectstore")


class Place(msgspec.Struct, frozen=True):
    """Where a driver finds its cluster: addresses, and the token."""

    gcs_address: str
    raylet_path: str
    #: Hexadecimal.
    node_id: str
    session_dir: str
    token: str
    #: Where other nodes reach this one; empty = it is the only node of its cluster.
    node_host: str = ""


class EmbeddedCluster:
    """One head process and its session directory."""

    def __init__(self, temp_dir: str | None) -> None:
        self.directory = new_session_directory(temp_dir)
        self.session_name = self.directory.name
        for part in ("sockets", "logs"):
            (self.directory / part).mkdir(mode=0o700)
        self._process: subprocess.Popen[bytes] | None = None

    def start(
        self,
        *,
        resources: dict[str, float],
        object_store_bytes: int,
        labels: dict[str, str],
        spill_dir: str,
        settings: dict[str, float],
    ) -> Place:
        """Raises: RuntimeError when the services are not installed, or do not start: with the end of their log."""
        check_installed()
        _check_loopback()
        config = HeadConfig(
            token=os.environ.get("SHOAL_AUTH_TOKEN") or uuid.uuid4().hex + uuid.uuid4().hex,
            session_name=self.session_name,
            session_dir=str(self.directory),
            driver_pid=os.getpid(),
            resources=resources,
            object_store_bytes=object_store_bytes,
            labels=labels,
            spill_dir=spill_dir,
            settings=settings,
            log_level=os.environ.get("SHOAL_LOG_LEVEL", "warning"),
        )
        config_read, config_write = os.pipe()
        ready_read, ready_write = os.pipe()
        command = interpreter("shoal_head", "--config-fd", str(config_read), "--ready-fd", str(ready_write))
        try:
            with open(self.directory / "logs" / "head.log", "ab") as log:
                self._process = subprocess.Popen(
                    command,
                    pass_fds=[config_read, ready_write],
                    env=environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        finally:
            os.close(config_read)
            os.close(ready_write)
        with os.fdopen(config_write, "wb") as file:
            file.write(msgspec.json.encode(config))
        # While the head starts: what this driver will need of gRPC.
        from shoal_common.rpc import client as grpc_channel  # noqa: F401
        from shoal_proto.v1 import gcs_pb2_grpc  # noqa: F401

        with os.fdopen(ready_read, "rb") as file:
            readable, _, _ = select.select([file], [], [], START_TIMEOUT_S)
            line = file.readline() if readable else b""
        ready = msgspec.json.decode(line, type=HeadReady) if line else HeadReady(error="it ended without a word")
        if ready.error:
            raise RuntimeError(f"The embedded cluster did not start: {ready.error}\n{self._tail_of_log()}")
        place = Place(ready.gcs_address, ready.raylet_path, ready.node_id, str(self.directory), config.token)
        with os.fdopen(os.open(self.directory / "cluster.json", os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(msgspec.json.encode(place))
        return place

    def stop(self) -> None:
        """End the head, by force after ``STOP_TIMEOUT_S``, and remove the session's files."""
        process = self._process
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                logger.warning("The head (pid %d) did not end in %s s and is killed", process.pid, STOP_TIMEOUT_S)
                process.kill()
                process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _tail_of_log(self) -> str:
        text = (self.directory / "logs" / "head.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-20:])


def check_installed() -> None:
    """Raises: RuntimeError when the services are not."""
    missing = [name for name in _SERVICES if importlib.util.find_spec(name) is None]
    if missing:
        raise RuntimeError(
            f"This runs the services on this machine, and {', '.join(missing)} is not installed: "
            "pip install 'shoal[local]', or connect to a cluster with shoal.init(address=...)"
        )


def _check_loopback() -> None:
    """Raises: RuntimeError where the services could not reach each other, and would wait for it for half a minute."""
    try:
        with socket.create_server((LOOPBACK, 0)) as server:
            socket.create_connection(server.getsockname(), timeout=START_TIMEOUT_S).close()
    except OSError as error:
        raise RuntimeError(
            f"The embedded cluster's processes talk over the loopback interface, and {LOOPBACK} cannot be reached: "
            f"{error}. Bring the interface up (ip link set lo up)"
        ) from error


def root_directory(temp_dir: str | None) -> Path:
    """Where this user's sessions live: ``temp_dir``, else below SHOAL_TMPDIR, TMPDIR or /tmp.

    Raises: PermissionError when somebody else made it, ValueError for a ``temp_dir`` that is relative or too long.
    """
    if temp_dir and not os.path.isabs(temp_dir):
        raise ValueError(f"_temp_dir must be an absolute path, not {temp_dir!r}")
    if temp_dir and len(temp_dir) > MAX_ROOT_LENGTH:
        raise ValueError(
            f"_temp_dir={temp_dir!r} is too long: the paths of sockets below it have to fit into 107 bytes. Choose one "
            f"of at most {MAX_ROOT_LENGTH} characters."
        )
    # Not tempfile.gettempdir(): once the disk is full that is another directory, and nothing that runs would be found.
    above = os.environ.get("SHOAL_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    root = Path(temp_dir) if temp_dir else Path(above) / f"shoal-{os.getuid()}"
    if len(str(root)) > MAX_ROOT_LENGTH:
        root = Path("/tmp") / f"shoal-{os.getuid()}"
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    if root.stat().st_uid != os.getuid():
        raise PermissionError(f"{root} belongs to another user: give init(_temp_dir=...) a directory of your own")
    return root


def new_session_directory(temp_dir: str | None) -> Path:
    """A private one for this driver; those of drivers that are dead are removed."""
    root = root_directory(temp_dir)
    _sweep_dead_sessions(root)
    directory = root / f"session_{time.strftime('%Y%m%d-%H%M%S')}_{os.getpid()}_{uuid.uuid4().hex[:6]}"
    directory.mkdir(mode=0o700)
    return directory


def running_clusters() -> list[Place]:
    """The embedded clusters of this user on this machine, the last one started first."""
    places = []
    for path in sorted(root_directory(None).glob("session_*/cluster.json"), key=_age):
        with contextlib.suppress(OSError, msgspec.DecodeError):  # it is just ending
            if _driver_lives(path.parent):
                places.append(msgspec.json.decode(path.read_bytes(), type=Place))
    return places


def _age(path: Path) -> float:
    try:
        return -path.stat().st_mtime
    except OSError:
        return 0.0


def _driver_lives(directory: Path) -> bool:
    pid = directory.name.split("_")[2]
    return Path(f"/proc/{pid}").exists()


def _sweep_dead_sessions(root: Path) -> None:
    """Remove what is left where a driver and its head were killed at the same time."""
    for directory in root.glob("session_*_*_*"):
        if not _driver_lives(directory):
            shutil.rmtree(directory, ignore_errors=True)
