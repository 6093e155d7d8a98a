"""``init`` and ``shutdown``: a driver's session, on an embedded cluster of its own or on one that runs already."""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import msgspec
from shoal_common import ids

from shoal import _worker, exceptions
from shoal._log_stream import LogStream

logger = logging.getLogger("shoal")

#: The head must be ready after so many seconds, and gone so many after it was told to end.
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 8.0
MAX_STORE_BYTES = 200 * 1000**3

_lock = threading.RLock()
_session: _Session | None = None


class Context:
    """What ``init`` returns. A context manager: leaving it shuts the session down."""

    dashboard_url: str | None = None

    def __init__(self, info: dict[str, Any]) -> None:
        self.python_version = ".".join(str(n) for n in sys.version_info[:3])
        self.ray_version = "2.60.0"
        self.shoal_version = "0.1.0"
        self.ray_commit = ""
        self.address_info = info

    def __getitem__(self, key: str) -> Any:
        return self.address_info[key]

    def __enter__(self) -> Context:
        return self

    def __exit__(self, *exc: object) -> None:
        shutdown()

    def disconnect(self) -> None:
        shutdown()

    def __repr__(self) -> str:
        return f"ShoalContext({self.address_info['address']})"


class _Session:
    """What ``shutdown`` has to undo."""

    def __init__(self) -> None:
        self.head: subprocess.Popen[bytes] | None = None
        self.session_dir: Path | None = None
        self.driver_socket: Path | None = None
        self.logs: LogStream | None = None
        self.context: Context | None = None
        self.sigterm: Any = None


def is_initialized() -> bool:
    return _worker.current_or_none() is not None


def init(
    address: str | None = None,
    *,
    num_cpus: int | None = None,
    num_gpus: int | None = None,
    resources: dict[str, float] | None = None,
    labels: dict[str, str] | None = None,
    object_store_memory: int | None = None,
    local_mode: bool = False,
    ignore_reinit_error: bool = False,
    include_dashboard: bool | None = None,
    dashboard_host: str = "127.0.0.1",
    dashboard_port: int | None = None,
    job_config: Any = None,
    configure_logging: bool = True,
    logging_level: int | str = logging.INFO,
    logging_format: str | None = None,
    logging_config: Any = None,
    log_to_driver: bool | None = None,
    namespace: str | None = None,
    runtime_env: dict[str, Any] | None = None,
    enable_resource_isolation: bool = False,
    system_reserved_cpu: float | None = None,
    system_reserved_memory: int | None = None,
    object_spilling_directory: str | None = None,
    **kwargs: Any,
) -> Context:
    """Connect this driver to a cluster; with ``address=None`` start an embedded one, which ends with the driver.

    ``num_cpus`` defaults to the CPUs of the machine, ``object_store_memory`` (bytes) to 30 % of its available
    memory. ``address``: None (SHOAL_ADDRESS, else a cluster of its own), "local", "auto" (the last one
    started on this machine) or "host:port" of a GCS.

    Raises: RuntimeError (initialized already, unknown argument), ConnectionError (nobody there),
    AuthenticationError (wrong token), ValueError (wrong argument, or resources given while connecting).
    """
    private = {"_memory", "_temp_dir", "_node_ip_address", "_system_config", "_node_name", "_driver_object_store_memory",
               "_metrics_export_port", "_tracing_startup_hook", "_redis_username", "_redis_password",
               "_plasma_directory", "_object_spilling_directory", "_enable_object_reconstruction", "allow_multiple"}
    unknown = sorted(set(kwargs) - private)
    if unknown:
        raise RuntimeError(f"Unknown keyword argument(s): {', '.join(unknown)}")
    if kwargs.get("allow_multiple"):
        raise RuntimeError("`allow_multiple` argument is passed to `shoal.init` when the client is not used.")
    if local_mode:
        raise ValueError("local_mode is gone from Ray too: debug a task with breakpoint(), or call the plain function")
    with _lock:
        global _session
        if is_initialized():
            if ignore_reinit_error:
                assert _session is not None and _session.context is not None
                return _session.context
            raise RuntimeError(
                "Maybe you called shoal.init twice by accident? This error can be suppressed by passing in "
                "'ignore_reinit_error=True' or by calling 'shoal.shutdown()' prior to 'shoal.init()'."
            )
        _check_amounts(num_cpus, num_gpus, resources, object_store_memory, labels)
        if namespace is not None and (not isinstance(namespace, str) or not namespace):
            raise ValueError('"" is not a valid namespace. Pass None to not specify a namespace.')
        if job_config is not None and namespace is None:
            namespace = getattr(job_config, "ray_namespace", None)
        if configure_logging:
            _configure_logging(logging_level, logging_format)
        if log_to_driver is None:
            log_to_driver = os.environ.get("SHOAL_LOG_TO_DRIVER", "1") != "0"
        target = os.environ.get("SHOAL_ADDRESS") if address in (None, "auto") else address
        session = _Session()
        _session = session
        try:
            if target in (None, "", "local") and address != "auto":
                place = _start_head(
                    session,
                    _node_resources(num_cpus, num_gpus, resources, kwargs.get("_memory"), object_store_memory),
                    _store_bytes(object_store_memory),
                    labels or {},
                    object_spilling_directory or kwargs.get("_object_spilling_directory") or "",
                    kwargs.get("_temp_dir"),
                    dict(kwargs.get("_system_config") or {}),
                )
            else:
                given = {"num_cpus": num_cpus, "num_gpus": num_gpus, "resources": resources, "labels": labels,
                         "object_store_memory": object_store_memory, "_system_config": kwargs.get("_system_config")}
                for name, value in given.items():
                    if value is not None:
                        raise ValueError(
                            f"When connecting to an existing cluster, {name} must not be provided: the cluster has its own."
                        )
                place = _find_cluster(target or "auto")
            _connect(session, place, namespace, job_config)
        except BaseException:
            shutdown()
            raise
        if log_to_driver:
            session.logs = LogStream(_worker.current())
            session.logs.start()
        _install_signal_handlers(session)
        context = Context(
            {
                "address": place["gcs_address"],
                "gcs_address": place["gcs_address"],
                "node_ip_address": "127.0.0.1",
                "raylet_socket_name": place["raylet_path"],
                "object_store_address": place["raylet_path"],
                "session_dir": place["session_dir"],
                "temp_dir": str(Path(place["session_dir"]).parent),
                "node_id": place["node_id"],
                "webui_url": None,
            }
        )
        session.context = context
        return context


def shutdown(_exiting_interpreter: bool = False) -> None:
    """End the session: this driver's tasks and actors end, and its embedded cluster. Does nothing without a session.

    Refs and handles of the session are invalid afterwards; decorated functions and classes are not.
    """
    with _lock:
        global _session
        session, _session = _session, None
        if session is None:
            return
        core = _worker.current_or_none()
        if core is not None:
            if session.logs is not None:
                session.logs.finish()
            core.close()
            _worker.set_current(None)
        if session.sigterm is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, session.sigterm)
        if session.head is not None:
            _stop_head(session.head)
        if session.driver_socket is not None:
            session.driver_socket.unlink(missing_ok=True)
        if session.session_dir is not None:
            shutil.rmtree(session.session_dir, ignore_errors=True)
            with contextlib.suppress(OSError, ValueError):
                if json.loads(_current_cluster_file().read_text())["session_dir"] == str(session.session_dir):
                    _current_cluster_file().unlink()


atexit.register(shutdown, True)


# -- the embedded cluster -------------------------------------------------------------------------------


def _start_head(
    session: _Session, resources: dict[str, float], store_bytes: int, labels: dict[str, str], spill_dir: str,
    temp_dir: str | None, system_config: dict[str, Any],
) -> dict[str, str]:
    try:
        import shoal_gcs  # noqa: F401
        import shoal_objectstore  # noqa: F401
        import shoal_raylet  # noqa: F401
        import shoal_scheduler  # noqa: F401
    except ImportError as error:
        raise RuntimeError(
            f"shoal.init() without an address runs the services on this machine, and {error.name} is not installed: "
            "pip install 'shoal[local]', or connect to a cluster with shoal.init(address=...)"
        ) from error
    from shoal.head import HeadConfig, HeadReady

    root = _root_directory(temp_dir)
    _sweep_dead_sessions(root)
    name = f"session_{time.strftime('%Y%m%d-%H%M%S')}_{os.getpid()}_{uuid.uuid4().hex[:6]}"
    directory = root / name
    for part in ("", "sockets", "logs"):
        (directory / part).mkdir(mode=0o700)
    session.session_dir = directory
    token = os.environ.get("SHOAL_AUTH_TOKEN") or uuid.uuid4().hex + uuid.uuid4().hex
    config = HeadConfig(
        token=token,
        session_name=name,
        session_dir=str(directory),
        driver_pid=os.getpid(),
        resources=resources,
        object_store_bytes=store_bytes,
        labels=labels,
        spill_dir=spill_dir,
        infeasible_grace_s=_grace(system_config),
        log_level=os.environ.get("SHOAL_LOG_LEVEL", "warning"),
    )
    config_read, config_write = os.pipe()
    ready_read, ready_write = os.pipe()
    try:
        with open(directory / "logs" / "head.log", "ab") as log:
            session.head = subprocess.Popen(
                [sys.executable, "-m", "shoal.head", "--config-fd", str(config_read), "--ready-fd", str(ready_write)],
                pass_fds=[config_read, ready_write],
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
    from shoal_common import grpc_channel  # noqa: F401
    from shoal_proto.v1 import gcs_pb2_grpc  # noqa: F401

    with os.fdopen(ready_read, "rb") as file:
        import select

        readable, _, _ = select.select([file], [], [], START_TIMEOUT_S)
        line = file.readline() if readable else b""
    ready = msgspec.json.decode(line, type=HeadReady) if line else HeadReady(error="it ended without a word")
    if ready.error:
        tail = _tail(directory / "logs" / "head.log")
        raise RuntimeError(f"The embedded cluster did not start: {ready.error}\n{tail}")
    place = {
        "gcs_address": ready.gcs_address,
        "raylet_path": ready.raylet_path,
        "node_id": ready.node_id,
        "session_dir": str(directory),
        "session_name": name,
        "token": token,
    }
    _write_current_cluster(place)
    return place


def _stop_head(head: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        head.send_signal(signal.SIGTERM)
    try:
        head.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        logger.warning("The embedded cluster (pid %d) did not end in %s s and is killed", head.pid, STOP_TIMEOUT_S)
        head.kill()
        head.wait()


def _tail(path: Path) -> str:
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-20:])
    except OSError:
        return ""


def _root_directory(temp_dir: str | None) -> Path:
    """Where sessions live: short, because a Unix socket's path has 107 bytes, and ours alone."""
    root = Path(temp_dir) if temp_dir else Path(tempfile.gettempdir()) / f"shoal-{os.getuid()}"
    if len(str(root)) > 40:
        root = Path("/tmp") / f"shoal-{os.getuid()}"
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    if root.stat().st_uid != os.getuid():
        raise PermissionError(f"{root} belongs to another user: give init(_temp_dir=...) a directory of your own")
    return root


def _sweep_dead_sessions(root: Path) -> None:
    """Remove what drivers that were killed together with their head have left."""
    for directory in root.glob("session_*"):
        with contextlib.suppress(IndexError, ValueError):
            pid = int(directory.name.split("_")[2])
            if not Path(f"/proc/{pid}").exists():
                shutil.rmtree(directory, ignore_errors=True)


def _current_cluster_file() -> Path:
    return _root_directory(None) / "current_cluster"


def _write_current_cluster(place: dict[str, str]) -> None:
    path = _current_cluster_file()
    temporary = path.with_name(f"current_cluster.{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w") as file:
        json.dump(place, file)
    temporary.rename(path)


# -- joining --------------------------------------------------------------------------------------------


def _find_cluster(address: str) -> dict[str, str]:
    """Raises: ConnectionError when nobody is there, AuthenticationError for a wrong token."""
    import grpc
    from shoal_common.grpc_channel import sync_channel
    from shoal_proto.v1 import gcs_pb2, gcs_pb2_grpc

    place: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError):
        place = json.loads(_current_cluster_file().read_text())
    if address == "auto":
        if not place:
            raise ConnectionError(
                "Could not find any running Shoal instance. Please specify the one to connect to by setting `address`."
            )
        address = place["gcs_address"]
    if "://" in address or ":" not in address:
        raise ValueError(f"Malformed address: {address}. Expected 'host:port', 'auto' or 'local'.")
    token = os.environ.get("SHOAL_AUTH_TOKEN") or _token_from_file()
    if not token and place.get("gcs_address") == address:
        token = place["token"]
    if not token:
        token = "none"
    channel = sync_channel(address, token)
    try:
        stub = gcs_pb2_grpc.NodeServiceStub(channel)
        nodes = stub.ListNodes(gcs_pb2.ListNodesRequest(), timeout=5).nodes
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.UNAUTHENTICATED:
            raise exceptions.AuthenticationError(
                f"The cluster at {address} refused this driver: {error.details()}"
            ) from None
        raise ConnectionError(
            f"Shoal could not connect to a cluster at {address}: {error.details()}. Check that it runs and is reachable."
        ) from None
    finally:
        channel.close()
    for node in nodes:
        if node.state == gcs_pb2.NODE_STATE_ALIVE and os.path.exists(node.raylet_path):
            return {
                "gcs_address": address,
                "raylet_path": node.raylet_path,
                "node_id": node.node_id.hex(),
                "session_dir": node.session_dir or str(Path(node.raylet_path).parent.parent),
                "token": token,
                "session_name": "",
            }
    raise ConnectionError(f"The cluster at {address} has no node on this machine to attach to.")


def _token_from_file() -> str:
    path = Path(os.environ.get("SHOAL_AUTH_TOKEN_PATH") or Path.home() / ".shoal" / "auth_token")
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _connect(session: _Session, place: dict[str, str], namespace: str | None, job_config: Any) -> None:
    import grpc
    from shoal_common.handshake import HandshakeError
    from shoal_proto.v1 import gcs_pb2

    from shoal._runtime.core_worker import CoreWorker
    from shoal._runtime.executor import job_config_id
    from shoal._runtime.gcs_client import GcsClient
    from shoal._runtime.reactor import defer_interrupts

    gcs = GcsClient(place["gcs_address"], place["token"])
    worker_id = ids.new_worker_id()
    metadata = getattr(job_config, "metadata", None) or {}
    try:
        job = gcs.call(
            "Job",
            "StartJob",
            gcs_pb2.StartJobRequest(
                driver_id=worker_id,
                namespace=namespace or "",
                pid=os.getpid(),
                entrypoint=" ".join(sys.argv)[:1000],
                metadata=metadata,
            ),
        )
        config = {"sys_path": _driver_sys_path(), "namespace": job.namespace}
        gcs.call(
            "Function",
            "PutFunction",
            gcs_pb2.PutFunctionRequest(
                job_id=job.job_id, function_id=job_config_id(job.job_id), data=msgspec.msgpack.encode(config)
            ),
        )
    except grpc.RpcError as error:
        gcs.close()
        raise ConnectionError(f"The GCS at {place['gcs_address']} did not start a job: {error.details()}") from error
    session.driver_socket = Path(place["session_dir"]) / "sockets" / f"d-{worker_id.hex()[:16]}"
    try:
        core = CoreWorker(
            role="driver",
            token=place["token"],
            job_id=job.job_id,
            worker_id=worker_id,
            node_id=bytes.fromhex(place["node_id"]),
            raylet_path=place["raylet_path"],
            gcs=gcs,
            socket_path=str(session.driver_socket),
            session_name=job.session_name,
            session_dir=place["session_dir"],
            namespace=job.namespace,
            host="127.0.0.1",
        )
    except HandshakeError as error:
        gcs.close()
        raise exceptions.AuthenticationError(str(error)) from error
    except OSError as error:
        gcs.close()
        raise ConnectionError(f"The raylet at {place['raylet_path']} cannot be reached: {error}") from error
    _worker.set_current(core)
    defer_interrupts()
    core.start()


def _driver_sys_path() -> list[str]:
    """Where the driver's own modules come from, as the workers must find them."""
    paths = [os.getcwd() if path == "" else os.path.abspath(path) for path in sys.path]
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    if main:
        paths.insert(0, os.path.dirname(os.path.abspath(main)))
    return list(dict.fromkeys(paths))


# -- arguments ------------------------------------------------------------------------------------------


def _check_amounts(
    num_cpus: Any, num_gpus: Any, resources: Any, object_store_memory: Any, labels: Any
) -> None:
    for name, value in (("num_cpus", num_cpus), ("num_gpus", num_gpus)):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{name} must be a number, not {type(value).__name__}")
        if value < 0:
            raise ValueError(f"{name} must not be negative, got {value}")
    if object_store_memory is not None:
        if isinstance(object_store_memory, bool) or not isinstance(object_store_memory, int):
            raise TypeError("object_store_memory must be an int, in bytes")
        if object_store_memory < 75 * 1024 * 1024:
            raise ValueError(
                "Attempting to cap object store memory usage at "
                f"{object_store_memory} bytes, but the minimum allowed is {75 * 1024 * 1024} bytes."
            )
    if resources is not None:
        if not isinstance(resources, dict):
            raise TypeError("resources must be a dictionary of name to amount")
        for name, amount in resources.items():
            if name in ("CPU", "GPU", "memory", "object_store_memory"):
                raise ValueError(f"Use num_cpus, num_gpus, object_store_memory instead of resources[{name!r}]")
            if isinstance(amount, bool) or not isinstance(amount, (int, float)):
                raise TypeError(f"resources[{name!r}] must be a number")
            if amount < 0:
                raise ValueError(f"resources[{name!r}] must not be negative, got {amount}")
    if labels is not None and not all(isinstance(k, str) and isinstance(v, str) for k, v in dict(labels).items()):
        raise ValueError("labels must map strings to strings")


def _available_memory() -> int:
    """Bytes, within the container's limit."""
    available = 0
    with open("/proc/meminfo") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                available = int(line.split()[1]) * 1024
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            available = min(available, int(Path(path).read_text()))
    return available


def _store_bytes(object_store_memory: int | None) -> int:
    if object_store_memory is not None:
        return object_store_memory
    return max(min(int(_available_memory() * 0.3), MAX_STORE_BYTES), 75 * 1024 * 1024)


def _node_resources(
    num_cpus: float | None, num_gpus: float | None, resources: dict[str, float] | None, memory: int | None,
    object_store_memory: int | None,
) -> dict[str, float]:
    amounts = dict(resources or {})
    amounts["CPU"] = len(os.sched_getaffinity(0)) if num_cpus is None else num_cpus
    if num_gpus:
        amounts["GPU"] = num_gpus
    amounts["memory"] = memory if memory is not None else int(_available_memory() * 0.7)
    amounts["object_store_memory"] = _store_bytes(object_store_memory)
    amounts["node:127.0.0.1"] = 1.0
    amounts["node:__internal_head__"] = 1.0
    return amounts


def _grace(system_config: dict[str, Any]) -> float:
    value = system_config.pop("infeasible_grace_s", None)
    if value is None:
        value = os.environ.get("SHOAL_INFEASIBLE_GRACE_S", "30")
    return float(value)


def _configure_logging(level: int | str, text_format: str | None) -> None:
    logger.setLevel(level.upper() if isinstance(level, str) else level)
    if not logger.handlers and not logging.getLogger().handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(
            logging.Formatter(text_format or "%(asctime)s\t%(levelname)s %(filename)s:%(lineno)s -- %(message)s")
        )
        logger.addHandler(handler)


def _install_signal_handlers(session: _Session) -> None:
    """SIGTERM ends the driver through ``sys.exit``, so that exit hooks run (as Ray does)."""
    if threading.current_thread() is not threading.main_thread():
        return
    session.sigterm = signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(signum))
