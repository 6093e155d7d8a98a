"""``init`` and ``shutdown``: a driver's session, on an embedded cluster of its own or on one that runs already."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal import _context, _current, _html, _structured_logs, _tracing, exceptions
from shoal._launch import dashboards
from shoal._launch.cluster_address import ClusterAddress
from shoal._launch.embedded import EmbeddedCluster
from shoal._launch.node_resources import available_memory, check_amounts, node_resources, store_bytes
from shoal._net.gcs.client import GcsClient
from shoal._session import signals
from shoal._session.address import ADDRESS_VARIABLE, GATEWAY_SCHEME, find_cluster, given_token, own_host, target_of
from shoal._session.arguments import check_implemented, directory_given, port_given, system_settings
from shoal._session.driver_logging import configure_logging as configure_logger
from shoal._session.log_stream import LogStream
from shoal._session.named_job import DEFAULT_KEEP_S, JobName, hold, named_job_given
from shoal._session.packages import RayletUploads, uploaded
from shoal._session.submitted_job import submitted_job
from shoal._text import check_text
from shoal._values import kept_memory
from shoal._values.flags import flag
from shoal._version import RAY_VERSION, __version__
from shoal.job_config import JobConfig, LoggingConfig
from shoal.runtime_env import RuntimeEnv
from shoal_common import ids
from shoal_common.channel.frames import EnvironmentPrepare, ExitIntent
from shoal_common.kinds import ExitKind
from shoal_common.placement.labels import given_labels
from shoal_common.placement.runtime_env import decode, encode, merged
from shoal_common.surroundings import occupy_standard_streams, readable

if TYPE_CHECKING:
    from shoal._owner.core_worker import CoreWorker
    from shoal._session.outside import OutsideDriver
    from shoal._session.panel import Panel

logger = logging.getLogger("shoal")

#: The GCS has heard by then that a named job is complete, in seconds.
_COMPLETE_WITHIN_S = 10.0
#: The node is told how this driver ends, in seconds.
_TOLD_WITHIN_S = 1.0

_lock = threading.RLock()
_session: _Session | None = None


class Context(Mapping[str, Any]):
    """What ``init`` returns: a read-only mapping of addresses. A context manager: leaving it shuts the session down."""

    def __init__(self, info: dict[str, Any]) -> None:
        self.python_version = ".".join(str(n) for n in sys.version_info[:3])
        self.ray_version = RAY_VERSION
        self.shoal_version = __version__
        self.ray_commit = ""
        self.address_info = info
        #: Whether this driver goes on with what another one has left under the name of its job.
        self.attached = False

    @property
    def dashboard_url(self) -> str | None:
        """``host:port`` of the cluster's dashboard, as Ray writes it; None = it has none, or the session has ended."""
        known: str | None = self.address_info["webui_url"]
        if known is not None or _current.current_or_none() is None:
            return known
        url = dashboards.url_of(_current.current().gcs)
        return url.partition("://")[2] if url is not None else None

    def __getitem__(self, key: str) -> Any:
        return self.address_info[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.address_info)

    def __len__(self) -> int:
        return len(self.address_info)

    def __enter__(self) -> Context:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        _end(complete=kind is None)

    def disconnect(self) -> None:
        shutdown()

    def __repr__(self) -> str:
        return f"ShoalContext({self.address_info['address']})"

    def _repr_html_(self) -> str:
        return _html.table(repr(self), self._rows())

    def _ipython_display_(self) -> None:
        """In a notebook: with what the cluster has and what of it is used, until the session ends.

        Raises: NotImplementedError, by which IPython knows that it is shown as anything else: in a prompt, and when
        the session has ended.
        """
        from shoal._session import panel

        display = panel.display_of_notebook()
        with _lock:
            if display is None or _session is None or _session.context is not self:
                raise NotImplementedError("there is nothing to follow, or no place to show it")
            if _session.panel is None:
                _session.panel = panel.Panel(_current.current().gcs, repr(self), self._rows())
            _session.panel.show(display)

    def _rows(self) -> list[tuple[str, object]]:
        versions = [("Shoal", self.shoal_version), ("Python", self.python_version)]
        return [*versions, *self.address_info.items()]


class _Session:
    """What ``shutdown`` has to undo."""

    def __init__(self) -> None:
        self.cluster: EmbeddedCluster | None = None
        self.dashboard: dashboards.Dashboard | None = None
        self.outside: OutsideDriver | None = None
        self.driver_socket: Path | None = None
        self.logs: LogStream | None = None
        #: Once a notebook has shown the context.
        self.panel: Panel | None = None
        self.cluster_id = ""
        self.context: Context | None = None
        self.log_level = logger.level
        #: Undoes what ``logging_config`` has done.
        self.restore_logs: Callable[[], None] | None = None


def is_initialized() -> bool:
    return _current.current_or_none() is not None


def init(
    address: str | None = None,
    *,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    resources: dict[str, float] | None = None,
    labels: dict[str, str] | None = None,
    object_store_memory: float | None = None,
    local_mode: bool = False,
    ignore_reinit_error: bool = False,
    include_dashboard: bool | None = None,
    dashboard_host: str = "127.0.0.1",
    dashboard_port: int | None = None,
    job_config: JobConfig | None = None,
    configure_logging: bool = True,
    logging_level: int | str = logging.INFO,
    logging_format: str | None = None,
    logging_config: LoggingConfig | None = None,
    log_to_driver: bool | None = None,
    namespace: str | None = None,
    runtime_env: dict[str, Any] | None = None,
    enable_resource_isolation: bool = False,
    system_reserved_cpu: float | None = None,
    system_reserved_memory: int | None = None,
    object_spilling_directory: str | None = None,
    job: str | None = None,
    attach: bool = False,
    keep_s: float = DEFAULT_KEEP_S,
    **kwargs: Any,
) -> Context:
    """Connect this driver to a cluster; with ``address=None`` start an embedded one, which ends with the driver.

    ``num_cpus`` defaults to the CPUs of the machine, ``object_store_memory`` (bytes) to 30 % of its available
    memory. ``address``: None (SHOAL_ADDRESS, else the cluster that ``shoal start`` made on this machine, else one of
    its own), "local" (one of its own), "auto" (the last one started on this machine), "host:port" of a GCS to whose
    node on this machine the driver attaches, or "shoal://host:port" of a gateway for a driver anywhere else;
    "shoal://host:port,host:port" is the first of these gateways that answers.

    ``include_dashboard``: start the dashboard of the embedded cluster, at ``dashboard_port`` (None: 8265, or the next
    one that is free) of ``dashboard_host``; the context's ``dashboard_url`` says where, and whoever logs in there needs
    the token in the session's file ``auth_token``. None: if one of these is given. Other clusters: `shoal dashboard`.

    ``job``: a name for this driver's job, within its namespace, which is the name itself where none is given. When the
    driver ends otherwise than by ``shutdown()``, the job's named actors and what it has under names and keys are kept
    for ``keep_s`` seconds. The next driver goes on with them by ``attach=True``, which begins the job where nothing is
    kept; the context's ``attached`` tells which it was.

    Raises: RuntimeError (initialized already, unknown argument), TypeError (an argument of another type),
    ConnectionError (nobody there), AuthenticationError (wrong token), JobInUseError (the job has a driver, or is kept
    for one and ``attach`` is not given), ValueError (wrong argument, resources given while connecting, ``attach`` on a
    cluster that ends with this driver, or what Shoal does not do yet: see ``arguments.NOT_IMPLEMENTED``).
    """
    check_implemented(
        {
            "local_mode": local_mode,
            "enable_resource_isolation": enable_resource_isolation,
            "system_reserved_cpu": system_reserved_cpu,
            "system_reserved_memory": system_reserved_memory,
            **kwargs,
        }
    )
    if kwargs.get("allow_multiple"):
        raise RuntimeError("`allow_multiple` argument is passed to `shoal.init` when the client is not used.")
    if job_config is not None and not isinstance(job_config, JobConfig):
        raise TypeError(f"job_config must be a shoal.job_config.JobConfig, not {type(job_config).__name__}")
    flag(ignore_reinit_error, "ignore_reinit_error")
    flag(configure_logging, "configure_logging")
    if include_dashboard is not None:
        flag(include_dashboard, "include_dashboard")
    if log_to_driver is not None:
        flag(log_to_driver, "log_to_driver")
    occupy_standard_streams()
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
        check_amounts(num_cpus, num_gpus, resources, kwargs.get("_memory"), object_store_memory, labels)
        if namespace is not None and not isinstance(namespace, str):
            raise TypeError(f"namespace must be None or a str, not {type(namespace).__name__}")
        if namespace == "":
            raise ValueError('"" is not a valid namespace. Pass None to not specify a namespace.')
        job_config = job_config or JobConfig()
        submitted = submitted_job(os.environ)
        for key in submitted.metadata:
            job_config.set_metadata(key, submitted.metadata[key])
        if logging_config is not None:
            job_config.set_py_logging_config(logging_config)
        environment = job_config.runtime_env if runtime_env is None else RuntimeEnv(**runtime_env)
        if namespace is None:
            namespace = job_config.ray_namespace
        check_text("a namespace", namespace)
        if log_to_driver is None:
            log_to_driver = os.environ.get("SHOAL_LOG_TO_DRIVER", "1") != "0"
        target = target_of(address)
        held = named_job_given(job, attach, keep_s, embedded=not target)
        tracing_hook = _tracing.hook_of_driver(kwargs.get("_tracing_startup_hook"))
        spill_dir = directory_given("object_spilling_directory", object_spilling_directory) or directory_given(
            "_object_spilling_directory", kwargs.get("_object_spilling_directory")
        )
        settings = system_settings(kwargs.get("_system_config") or {})
        session = _Session()
        _session = session
        worker_id = ids.new_worker_id()
        if job_config.py_logging_config is not None:
            session.restore_logs = _structured_logs.install(job_config.py_logging_config)
            configure_logger(job_config.py_logging_config.log_level, None)
        elif configure_logging:
            configure_logger(logging_level, logging_format)
        try:
            if not target:
                session.cluster = EmbeddedCluster(kwargs.get("_temp_dir"))
                session.cluster.start(
                    resources=node_resources(num_cpus, num_gpus, resources, kwargs.get("_memory"), object_store_memory),
                    object_store_bytes=store_bytes(object_store_memory),
                    labels=given_labels(labels, os.environ),
                    spill_dir=spill_dir,
                    settings=settings,
                    metrics_port=port_given("_metrics_export_port", kwargs.get("_metrics_export_port")),
                )
                _import_parts()
                cluster = session.cluster.await_ready()
                logger.info("Started a Shoal cluster on this machine, at %s.", cluster.gcs_address)
                elsewhere = dashboard_port is not None or dashboard_host not in ("127.0.0.1", "localhost")
                if include_dashboard or (include_dashboard is None and elsewhere):
                    session.dashboard = session.cluster.start_dashboard(cluster, dashboard_host, dashboard_port)
            else:
                given = {
                    "num_cpus": num_cpus,
                    "num_gpus": num_gpus,
                    "resources": resources,
                    "labels": labels,
                    "object_store_memory": object_store_memory,
                    "object_spilling_directory": object_spilling_directory,
                    "include_dashboard": include_dashboard or None,
                    "dashboard_port": dashboard_port,
                    "_object_spilling_directory": kwargs.get("_object_spilling_directory"),
                    "_memory": kwargs.get("_memory"),
                    "_metrics_export_port": kwargs.get("_metrics_export_port"),
                    "_system_config": kwargs.get("_system_config"),
                    # A driver outside of the cluster has files of its own on its machine.
                    "_temp_dir": None if target.startswith(GATEWAY_SCHEME) else kwargs.get("_temp_dir"),
                }
                from_environment = address is None and bool(os.environ.get(ADDRESS_VARIABLE))
                for name, value in given.items():
                    if value is not None and from_environment:
                        # A program that was written for a cluster of its own shall run on any.
                        logger.warning("init(%s=...) is ignored: SHOAL_ADDRESS names a cluster that has its own", name)
                    elif value is not None:
                        raise ValueError(
                            f"When connecting to an existing cluster, {name} must not be provided: the cluster has "
                            "its own."
                        )
                if target.startswith(GATEWAY_SCHEME):
                    from shoal._session.outside import OutsideDriver

                    session.outside = OutsideDriver(target, given_token(), worker_id, kwargs.get("_temp_dir"))
                    cluster = session.outside.cluster
                else:
                    cluster = find_cluster(target)
                where = session.outside.address if session.outside is not None else cluster.gcs_address
                logger.info("Connecting to the Shoal cluster at %s.", where)
            if held is not None:
                namespace = namespace or held.name
            _connect(
                session, cluster, worker_id, namespace, job_config, settings["max_lineage_bytes"], tracing_hook, held
            )
            attached = held is not None and hold(_current.current().gcs, _current.current().job_id, held)
            core = _current.current()
            dashboard_url = None
            if session.dashboard is not None and session.cluster is not None:
                dashboard_url = session.dashboard.await_url(core.gcs)
                logger.info(
                    "Its dashboard is at %s: log in with the token in %s.", dashboard_url, session.cluster.token_file
                )
            if tracing_hook:
                _tracing.set_up(tracing_hook, core.job_id, core.node_id, core.worker_id)
            document = _context.process.runtime_env = encode(
                merged(decode(submitted.runtime_env), uploaded(RayletUploads(core), environment))
            )
            if document and environment.get("config", {}).get("eager_install", True):
                with core.lock:
                    core.raylets.send(core.node_id, EnvironmentPrepare(document))
        except BaseException:
            _end(complete=False)
            raise
        if log_to_driver:
            session.logs = LogStream(
                _current.current(),
                session.cluster_id,
                os.path.join(cluster.session_dir, "logs"),
                kept=session.cluster is None,
            )
            session.logs.start()
        signals.install()
        context = Context(
            {
                "address": session.outside.address if session.outside is not None else cluster.gcs_address,
                "gcs_address": cluster.gcs_address,
                "node_ip_address": cluster.node_host or "127.0.0.1",
                "raylet_socket_name": cluster.raylet_path,
                "object_store_address": cluster.raylet_path,
                "session_dir": cluster.session_dir,
                "temp_dir": str(Path(cluster.session_dir).parent),
                "node_id": cluster.node_id,
                "webui_url": dashboard_url.partition("://")[2] if dashboard_url is not None else None,
            }
        )
        context.attached = attached
        session.context = context
        return context


def shutdown(_exiting_interpreter: bool = False) -> None:
    """End the session: this driver's tasks and actors end, and its embedded cluster. Does nothing without a session.

    Refs and handles of the session are invalid afterwards; decorated functions and classes are not. A named job is
    over, and nothing is kept under its name but what has a time of its own.
    """
    _end(complete=not _exiting_interpreter)


def _end(*, complete: bool) -> None:
    """``complete``: nothing is to be kept of a named job."""
    with _lock:
        global _session
        session, _session = _session, None
        if session is None:
            return
        core = _current.current_or_none()
        if core is not None:
            if complete and core.job_name:
                _complete(core)
            if session.logs is not None:
                session.logs.finish()
            if session.panel is not None:
                session.panel.stop(say=complete)
            core.raylet.send(ExitIntent(*_outcome(exiting=not complete)))
            core.deliver(_TOLD_WITHIN_S)
            core.close()
            if session.panel is not None:
                session.panel.join()
            _current.set_current(None)
            _context.process.runtime_env = ""
        _tracing.turn_off()
        logger.setLevel(session.log_level)
        if session.restore_logs is not None:
            session.restore_logs()
        signals.restore()
        if session.driver_socket is not None:
            session.driver_socket.unlink(missing_ok=True)
        if session.outside is not None:
            session.outside.close()
        if session.dashboard is not None:
            session.dashboard.stop()
        if session.cluster is not None:
            session.cluster.stop()


def _forget_in_child() -> None:
    """A forked child must not end its parent's cluster when it exits."""
    global _session
    _session = None


_current.register_starter(init)
atexit.register(shutdown, True)
os.register_at_fork(after_in_child=_forget_in_child)


def _outcome(*, exiting: bool) -> tuple[ExitKind, str]:
    """Of this driver, for the record of its job. ``exiting``: the interpreter is, which keeps what has ended it."""
    error = getattr(sys, "last_value", None) if exiting and not hasattr(sys, "ps1") else None
    if error is not None:
        lines = str(error).splitlines()
        return ExitKind.USER_ERROR, f"{type(error).__name__}: {lines[0][:500]}" if lines else type(error).__name__
    if exiting and signals.terminated():
        return ExitKind.USER_ERROR, "it was ended by SIGTERM"
    return ExitKind.INTENDED_USER_EXIT, ""


def _complete(core: CoreWorker) -> None:
    """Tell that nothing is to be kept of a named job."""
    try:
        core.gcs.jobs.complete(core.job_id, _COMPLETE_WITHIN_S)
    except exceptions.ShoalError as error:
        logger.warning("What the job %s keeps is kept until its time is up: %s", core.job_name, error)


def _connect(
    session: _Session,
    cluster: ClusterAddress,
    worker_id: bytes,
    namespace: str | None,
    job_config: JobConfig,
    max_lineage_bytes: float,
    tracing_hook: str,
    held: JobName | None,
) -> None:
    from shoal._owner.core_worker import CoreWorker
    from shoal._wire import job_settings
    from shoal_common.channel.handshake import HandshakeError, WrongTokenError
    from shoal_common.tls import Tls

    outside = session.outside
    tls = Tls.from_environ(os.environ) if cluster.node_host or outside is not None else None
    quota = job_settings.quota_of(job_config.max_resources)
    gcs = GcsClient(
        cluster.gcs_address, cluster.token, tls, patience_s=outside.opened.grace_s if outside is not None else 0.0
    )
    try:
        job = gcs.jobs.start(
            driver_id=worker_id,
            node_id=bytes.fromhex(cluster.node_id),
            namespace=namespace or "",
            pid=os.getpid(),
            entrypoint=readable(" ".join(sys.argv)[:1000]),
            metadata=job_config.metadata,
            quota=quota,
        )
        session.cluster_id = job.cluster_id
        lifetime = job_config.default_actor_lifetime
        search = _absolute(job_config.code_search_path)
        settings = job_settings.JobSettings(
            namespace=job.namespace,
            default_actor_lifetime=lifetime,
            sys_path=[*search, *(_absolute(sys.path) if outside is None else ())],
            max_lineage_bytes=max_lineage_bytes,
            weight=job_config.weight,
            max_resources=job_config.max_resources,
            logging=job_config.py_logging_config,
            tracing_startup_hook=tracing_hook,
            task_events=job_config.enable_task_events,
            job_name=held.name if held is not None else "",
        )
        gcs.functions.put(job.job_id, job_settings.key(job.job_id), job_settings.encode(settings))
    except exceptions.RpcError as error:
        gcs.close()
        raise ConnectionError(f"The GCS at {cluster.gcs_address} did not start a job: {error.message}") from error
    except BaseException:
        gcs.close()
        raise
    host = own_host(cluster)
    if outside is None:
        session.driver_socket = Path(cluster.session_dir) / "sockets" / f"d-{worker_id.hex()[:16]}"
    try:
        kept_memory.driver(available_memory())
        core = CoreWorker(
            role="driver",
            token=cluster.token,
            job_id=job.job_id,
            worker_id=worker_id,
            node_id=bytes.fromhex(cluster.node_id),
            raylet_path=cluster.raylet_path,
            gcs=gcs,
            socket_path=str(session.driver_socket) if outside is None else outside.client.peers_path,
            session_name=job.session_name,
            session_dir=cluster.session_dir,
            namespace=job.namespace,
            host=host or "127.0.0.1",
            listen_host=host,
            tls=tls,
            dialer=outside.client if outside is not None else None,
            address=outside.opened.address if outside is not None else None,
        )
    except WrongTokenError as error:
        gcs.close()
        raise exceptions.AuthenticationError(f"{error}.") from error
    except HandshakeError as error:
        gcs.close()
        raise ConnectionError(f"The raylet at {cluster.raylet_path} did not let this driver in: {error}") from error
    except OSError as error:
        gcs.close()
        raise ConnectionError(f"The raylet at {cluster.raylet_path} cannot be reached: {error}") from error
    if outside is not None:
        outside.serves(core)
    core.default_actor_lifetime = lifetime
    core.job_weight = job_config.weight
    core.job_quota = quota
    core.task_events_enabled = job_config.enable_task_events
    core.lineage.max_bytes = max_lineage_bytes
    core.job_name = settings.job_name
    _current.set_current(core)
    core.start()


def _import_parts() -> None:
    """What a session needs and ``import shoal`` must not pay for: while the head starts this costs no time."""
    from shoal._owner import core_worker  # noqa: F401
    from shoal_common.rpc import client  # noqa: F401
    from shoal_proto.v1 import gcs_pb2_grpc  # noqa: F401


def _absolute(paths: Iterable[Any]) -> list[bytes]:
    """Where modules come from, as the workers must find them; each once."""
    found: dict[bytes, None] = {}
    for path in paths:
        # Import hooks may keep other things than strings there. An empty path is the current directory, which may have
        # been deleted: then nothing comes from it, nor from what lies relative to it.
        if isinstance(path, str):
            with contextlib.suppress(FileNotFoundError):
                found[os.fsencode(os.path.abspath(path))] = None
    return list(found)
