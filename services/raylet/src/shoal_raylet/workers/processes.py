"""Worker processes: forked from the template or started plainly, watched, killed and reaped."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import structlog

from shoal_common.service.subreaper import become_subreaper
from shoal_common.surroundings import interpreter
from shoal_common.worker_launch import WorkerConfig, WorkerEnded, WorkerForked, WorkerNotForked
from shoal_raylet.workers import orphans
from shoal_raylet.workers.container_template import ContainerTemplate
from shoal_raylet.workers.environments.launch import Launch
from shoal_raylet.workers.output import WorkerOutput
from shoal_raylet.workers.template_process import TemplateProcess

log = structlog.get_logger(__name__)

#: A template that has not answered by then is replaced, in seconds (it imports while the first requests wait).
TEMPLATE_TIMEOUT_S = 20.0
#: The same for that of a runtime environment, which is started for the first worker and imports what users name. Less
#: than a worker has to register.
ENVIRONMENT_TEMPLATE_TIMEOUT_S = 50.0
#: Templates that are kept for runtime environments, besides the one of workers without.
MAX_ENVIRONMENT_TEMPLATES = 8
#: So much of what a template printed last is told, in bytes.
_TAIL_BYTES = 1000
#: Pauses before the template is started again, in seconds.
_FIRST_RESTART_S = 1.0
_MAX_RESTART_S = 60.0
#: A dead worker has become our child by then, or nobody knows its exit status, in seconds.
_STATUS_TIMEOUT_S = 1.0
#: A worker whose connection has ended may take this long to exit, in seconds.
_EXIT_GRACE_S = 2.0
#: The same where a profiler writes its report then.
_PROFILER_GRACE_S = 60.0
#: What has been killed is gone by then, however busy the machine is, in seconds.
_KILLED_WITHIN_S = 5.0


@dataclass(slots=True, eq=False)
class _Process:
    worker_id: bytes
    #: Of its runtime environment.
    key: str
    exit_grace_s: float
    pid: int = 0
    pidfd: int = -1
    #: Set when we are its parent from the start.
    popen: subprocess.Popen[bytes] | None = None
    #: Killed before its pid was known.
    doomed: bool = False
    answer_timeout: asyncio.TimerHandle | None = None
    status_timeout: asyncio.TimerHandle | None = None


@dataclass
class WorkerProcesses:
    """Belongs to one event loop."""

    make_config: Callable[[bytes, Launch], WorkerConfig]
    output: WorkerOutput
    template_log: Path
    #: Mounted in containers.
    sockets_dir: Path
    #: By key of the runtime environment, the one that was asked last at the end; "" has one unless it has failed.
    _templates: dict[str, TemplateProcess] = field(default_factory=dict)
    _processes: dict[bytes, _Process] = field(default_factory=dict)
    _orphans: orphans.OrphanReaper = field(default_factory=orphans.OrphanReaper)
    _restart: asyncio.TimerHandle | None = None
    _restart_pause_s: float = _FIRST_RESTART_S
    _stopping: bool = False
    _closing: set[asyncio.Future[None]] = field(default_factory=set)
    _reap_timer: asyncio.TimerHandle | None = None

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._all_gone = asyncio.Event()
        self._all_gone.set()

    def start(self, template: TemplateProcess | None, on_exit: Callable[[bytes, int | None], None]) -> None:
        """``on_exit(worker_id, exit_code)`` is called once for each launched worker; the code as of ``subprocess``,
        None = not known."""
        self._on_exit = on_exit
        become_subreaper()
        if template is None:
            self._start_template()
        else:
            self._adopt("", template)

    def launch(self, worker_id: bytes, key: str, launch: Launch) -> None:
        """``key``: of what ``launch`` says. The outcome comes as the worker's registration, or as
        ``on_exit``."""
        grace_s = _PROFILER_GRACE_S if launch.profiler else _EXIT_GRACE_S
        process = self._processes[worker_id] = _Process(worker_id, key, grace_s)
        self._all_gone.clear()
        try:
            self._launch(process, launch)
        except OSError as error:
            log.error("worker_start_failed", worker_id=worker_id.hex(), reason=str(error))
            self.output.note(worker_id, f"cannot start a process: {error}")
            self._loop.call_soon(self._exited, process, None)

    def kill(self, worker_id: bytes) -> None:
        """SIGKILL; idempotent."""
        process = self._processes.get(worker_id)
        if process is None:
            return
        if process.pidfd < 0:
            process.doomed = True
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(process.pidfd, signal.SIGKILL)

    def exit_grace_s(self, worker_id: bytes) -> float:
        """How long it may take to exit once it has closed its connection, in seconds."""
        process = self._processes.get(worker_id)
        return process.exit_grace_s if process is not None else _EXIT_GRACE_S

    async def wait_until_gone(self, timeout_s: float) -> None:
        """Until no launched worker is left, at most ``timeout_s``."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._all_gone.wait()

    async def stop(self) -> None:
        """SIGKILL to whatever is left, then the template; all are reaped."""
        self._stopping = True
        for timer in (self._restart, self._reap_timer):
            if timer is not None:
                timer.cancel()
        for worker_id in self._processes:
            self.kill(worker_id)
        await self.wait_until_gone(_KILLED_WITHIN_S)
        for key in list(self._templates):
            self._discard_template(key)
        if self._closing:
            await asyncio.wait(self._closing)
        # Killing a parent makes orphans of its children: until there are none.
        for _ in range(50):
            if not self._orphans.kill_and_reap(self._known_pids()):
                break
            await asyncio.sleep(0.005)
        for process in list(self._processes.values()):
            self._exited(process, None)

    # --- starting ---

    def _launch(self, process: _Process, launch: Launch) -> None:
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        err_read, err_write = os.pipe2(os.O_CLOEXEC)
        try:
            self.output.open(process.worker_id, out_read, err_read)
            config = self.make_config(process.worker_id, launch)
            template = self._template_of(process.key, launch)
            if template is None or not self._fork(template, process, config, out_write, err_write):
                if launch.container is not None:
                    raise OSError("the template in its container takes no work")
                self._start_plainly(process, config, launch, out_write, err_write)
        finally:
            os.close(out_write)
            os.close(err_write)

    def _fork(self, template: TemplateProcess, process: _Process, config: WorkerConfig, out: int, err: int) -> bool:
        try:
            template.fork(config, out, err)
        except OSError as error:
            log.warning("template_does_not_take_work", reason=str(error))
            if error.errno not in (errno.EAGAIN, errno.EMFILE):
                self._read_template(process.key, template)  # the workers that it has still forked live on
                self._template_failed(process.key, template, str(error))
            return False
        timeout_s = ENVIRONMENT_TEMPLATE_TIMEOUT_S if process.key else TEMPLATE_TIMEOUT_S
        reason = f"no answer within {timeout_s:g} s"
        process.answer_timeout = self._loop.call_later(timeout_s, self._template_failed, process.key, template, reason)
        return True

    def _start_plainly(self, process: _Process, config: WorkerConfig, launch: Launch, out: int, err: int) -> None:
        config_read, config_write = os.pipe2(os.O_CLOEXEC)
        try:
            # A document of one or two kilobytes: the pipe takes it whole.
            os.write(config_write, msgspec.json.encode(config))
            process.popen = subprocess.Popen(
                [*launch.profiler, *interpreter("shoal.worker", "--config-fd", str(config_read), python=launch.python)],
                pass_fds=[config_read],
                env={**launch.environment(), **config.env, **orphans.mark()},
                cwd=launch.directory,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        finally:
            os.close(config_read)
            os.close(config_write)
        self._watch(process, process.popen.pid)

    def _watch(self, process: _Process, pid: int) -> None:
        process.pid = pid
        # It leads a session of its own once it runs.
        self._orphans.sessions.add(pid)
        try:
            process.pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            # Dead and reaped already, before it became our child.
            process.status_timeout = self._loop.call_later(_STATUS_TIMEOUT_S, self._exited, process, None)
            return
        self._loop.add_reader(process.pidfd, self._ended, process)
        if process.doomed:
            self.kill(process.worker_id)

    # --- ends ---

    def _ended(self, process: _Process) -> None:
        """The pidfd is readable: the process is dead, its parent has its status."""
        self._loop.remove_reader(process.pidfd)
        if process.popen is not None:
            self._exited(process, process.popen.wait())
        elif (exit_code := _reap(process.pid)) is not None:
            self._exited(process, exit_code)
        else:
            process.status_timeout = self._loop.call_later(_STATUS_TIMEOUT_S, self._exited, process, None)

    def _exited(self, process: _Process, exit_code: int | None) -> None:
        if self._processes.pop(process.worker_id, None) is None:
            return
        if not self._processes:
            self._all_gone.set()
        for timer in (process.answer_timeout, process.status_timeout):
            if timer is not None:
                timer.cancel()
        if process.pidfd >= 0:
            self._loop.remove_reader(process.pidfd)
            os.close(process.pidfd)
        if exit_code is None and process.pid:
            exit_code = _reap(process.pid)
        self.output.finish(process.worker_id)
        self._on_exit(process.worker_id, exit_code)
        self._reap_soon()

    def _reap_soon(self) -> None:
        """What the dead process had started is ours now: it ends with it."""
        if not self._stopping and self._reap_timer is None:
            self._reap_timer = self._loop.call_later(0.05, self._reap)

    def _reap(self) -> None:
        self._reap_timer = None
        for key, template in list(self._templates.items()):
            # A worker that has just become our child is not an orphan: its packet has arrived.
            self._read_template(key, template)
        if self._orphans.kill_and_reap(self._known_pids()):
            self._reap_soon()

    def _known_pids(self) -> set[int]:
        known = {process.pid for process in self._processes.values()}
        return known | {template.pid for template in self._templates.values()}

    # --- templates ---

    def environment_released(self, key: str) -> None:
        """Nobody wants workers in it for now."""
        if key in self._templates:
            self._discard_template(key)

    def _template_of(self, key: str, launch: Launch) -> TemplateProcess | None:
        """None = there is none: the worker is started without."""
        if launch.profiler:
            return None
        template = self._templates.pop(key, None)
        if template is not None:
            self._templates[key] = template
        elif key:
            self._make_room()
            if launch.container is not None:
                template = ContainerTemplate.start_in(launch.container, self.sockets_dir, self.template_log, launch)
            else:
                template = TemplateProcess.start(self.template_log, launch)
            self._adopt(key, template)
        return template

    def _make_room(self) -> None:
        """A template holds the memory of an interpreter with all modules of a worker."""
        warm = [key for key in self._templates if key]
        busy = {
            process.key
            for process in self._processes.values()
            if process.key in self._templates
            and (process.answer_timeout is not None or self._templates[process.key].parent_of_workers)
        }
        for key in warm[: max(0, len(warm) - MAX_ENVIRONMENT_TEMPLATES + 1)]:
            if key not in busy:
                self._discard_template(key)

    def _start_template(self) -> None:
        self._restart = None
        try:
            template = TemplateProcess.start(self.template_log)
        except OSError as error:
            log.error("template_start_failed", reason=str(error))
            self._restart_later()
            return
        self._adopt("", template)

    def _adopt(self, key: str, template: TemplateProcess) -> None:
        self._templates[key] = template
        self._orphans.sessions.add(template.pid)
        self._loop.add_reader(template.control.fileno(), self._read_template, key, template)

    def _read_template(self, key: str, template: TemplateProcess) -> None:
        try:
            while (packet := template.receive()) is not None:
                if isinstance(packet, WorkerForked):
                    self._forked(packet)
                elif isinstance(packet, WorkerNotForked):
                    self._not_forked(packet)
                elif isinstance(packet, WorkerEnded) and packet.worker_id in self._processes:
                    self._exited(self._processes[packet.worker_id], packet.exit_code)
        except (EOFError, msgspec.DecodeError) as error:
            self._template_failed(key, template, str(error))

    def _forked(self, packet: WorkerForked) -> None:
        self._restart_pause_s = _FIRST_RESTART_S
        process = self._processes.get(packet.worker_id)
        if process is None:
            # Given up on already; its registration would be refused, but it must not linger until then.
            with contextlib.suppress(ProcessLookupError):
                os.kill(packet.pid, signal.SIGKILL)
            self._reap_soon()
            return
        if process.answer_timeout is not None:
            process.answer_timeout.cancel()
            process.answer_timeout = None
        self._watch(process, packet.pid)

    def _not_forked(self, packet: WorkerNotForked) -> None:
        process = self._processes.get(packet.worker_id)
        if process is not None and not process.pid:
            self.output.note(packet.worker_id, f"cannot start a process: {packet.reason}")
            self._exited(process, None)

    def _template_failed(self, key: str, template: TemplateProcess, reason: str) -> None:
        if self._templates.get(key) is not template or self._stopping:
            return
        if key:
            # What it printed says what is wrong with the interpreter, or with what it imports.
            reason = f"{reason}. The last lines of its log: {_tail(self.template_log)}"
        log.warning("template_failed", reason=reason, environment=key)
        self._discard_template(key)
        for process in list(self._processes.values()):
            if not process.pid and process.key == key:
                self.output.note(process.worker_id, f"the worker template failed: {reason}")
                self._exited(process, None)
        if not key:
            self._restart_later()

    def _discard_template(self, key: str) -> None:
        template = self._templates.pop(key)
        self._loop.remove_reader(template.control.fileno())
        closing = self._loop.run_in_executor(None, template.close)
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    def _restart_later(self) -> None:
        self._restart = self._loop.call_later(self._restart_pause_s, self._start_template)
        self._restart_pause_s = min(2 * self._restart_pause_s, _MAX_RESTART_S)


def _tail(path: Path) -> str:
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        return file.read().decode("utf-8", "replace").strip()
    return "nothing"


def _reap(pid: int) -> int | None:
    """The exit code of a dead child of ours; None = it is not ours (yet)."""
    with contextlib.suppress(ChildProcessError):
        reaped, status = os.waitpid(pid, os.WNOHANG)
        if reaped:
            return os.waitstatus_to_exitcode(status)
    return None
