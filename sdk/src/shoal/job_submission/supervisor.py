"""The supervisor of a submitted job: an actor that runs its program and outlives whoever handed it in.

It is made on a node that has what the job asks for, in the job's runtime environment, and begins by itself, also when
it is made again after its node or process was lost. Before each attempt it asks the GCS, which counts them. What the
program prints goes to the cluster's blobs (`shoal_common.logs.job_logs`). The program is a driver of its own; it and
all that it has started end with this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal import _context, _current
from shoal._session.submitted_job import JOB_VARIABLE, variable
from shoal.exceptions import RpcError
from shoal_common.auth import TOKEN_PATH_VARIABLE, TOKEN_VARIABLE
from shoal_common.errors import ServiceError
from shoal_common.logs.job_logs import JobLog
from shoal_common.states import SubmissionState

if TYPE_CHECKING:
    from shoal._net.gcs.submissions import SubmissionRecord
    from shoal._owner.core_worker import CoreWorker

#: What was printed is stored so often, in seconds, and when so much has gathered, in bytes.
_STORE_EVERY_S = 0.5
_STORE_AT_BYTES = 256 * 1024
#: So much waits for a store that is away; then the program waits when it prints.
_HELD_BYTES = 8 * 1024 * 1024
#: What the program leaves behind may print for so long after its end, in seconds.
_AFTER_END_S = 1.0
#: Between SIGTERM and SIGKILL, in seconds.
_GRACE_S = 3.0
#: Whether it is to be stopped is asked so often, in seconds.
_ASK_EVERY_S = 1.0
#: The end is told for so long, in seconds, before the supervisor gives up and is taken for dead.
_TELL_FOR_S = 600.0
_PAUSE_S = 1.0

_log = logging.getLogger("shoal")


class JobSupervisor:
    """``submission_id``: of the job. The dashboard calls ``ready`` to hear whether it could be made."""

    def __init__(self, submission_id: str) -> None:
        self._supervision = _Supervision(_current.current(), submission_id)
        threading.Thread(target=self._supervise, name="job supervisor", daemon=True).start()

    def ready(self) -> None:
        """It has been made."""

    def _supervise(self) -> None:
        from shoal import get_runtime_context, kill

        try:
            asyncio.run(self._supervision.run())
        finally:
            # Detached, so that nobody else ends it; after an error too: the GCS ends a job whose supervisor is gone.
            kill(get_runtime_context().current_actor)


class _Supervision:
    def __init__(self, core: CoreWorker, submission_id: str) -> None:
        self._core = core
        self._submission_id = submission_id
        self._actor_id = _context.process.actor_id

    async def run(self) -> None:
        from shoal_common.blob.client import BlobClient
        from shoal_common.rpc.client import aio_channel
        from shoal_common.tls import Tls

        cluster = await asyncio.to_thread(self._core.gcs.nodes.cluster)
        channel = aio_channel(
            ",".join(cluster.objectstore_addresses), self._core.gcs.token, tls=Tls.from_environ(os.environ)
        )
        async with channel:
            blobs = BlobClient(channel)
            try:
                await self._attempts(JobLog(blobs, self._submission_id))
            finally:
                await blobs.close()

    async def _attempts(self, log: JobLog) -> None:
        failure, exit_code = "", None
        while True:
            attempt_id = os.urandom(16)
            record = await self._ask(
                lambda a=attempt_id, f=failure, e=exit_code: self._core.gcs.submissions.begin(
                    self._submission_id, a, actor_id=self._actor_id, node_id=self._core.node_id, failure=f, exit_code=e
                )
            )
            if record is None or record.state is not SubmissionState.RUNNING:
                return
            request = json.loads(record.request)
            printed = _Printed(log)
            if record.attempt > 1:
                printed.add(f"--- attempt {record.attempt} ---\n".encode())
            try:
                exit_code, stopped = await self._attempt(request, printed)
            except (OSError, ValueError) as error:
                # Too long an argument, no room in /tmp, what is no text: another attempt would meet the same.
                text = f"Job entrypoint command could not be started: {error}"
                await self._ask(
                    lambda a=attempt_id, t=text: self._core.gcs.submissions.end(
                        self._submission_id, a, SubmissionState.FAILED, t, None
                    )
                )
                return
            if stopped or exit_code == 0:
                state = SubmissionState.STOPPED if stopped else SubmissionState.SUCCEEDED
                text = "Job was intentionally stopped." if stopped else "Job finished successfully."
                await self._ask(
                    lambda a=attempt_id, s=state, t=text, e=exit_code: self._core.gcs.submissions.end(
                        self._submission_id, a, s, t, e
                    )
                )
                return
            last = printed.last_lines()
            how = f"exit code {exit_code}" if exit_code >= 0 else f"signal {signal.Signals(-exit_code).name}"
            failure = f"Job entrypoint command failed with {how}, last available logs (truncated to 20,000 chars):\n"
            failure += last[-20_000:]

    async def _attempt(self, request: dict[str, Any], printed: _Printed) -> tuple[int, bool]:
        """The exit code, negative for a signal; and whether it was stopped. Raises: OSError, ValueError (also
        UnicodeError), when the program cannot be started."""
        with tempfile.TemporaryDirectory(prefix="shoal-job-") as directory:
            token_file = _write_secret(directory, self._core.gcs.token)
            # Not asyncio's own pipe: with that, the end of the program is not told before all that has it is gone.
            ours, theirs = os.pipe()
            try:
                process = await asyncio.create_subprocess_exec(
                    "/bin/sh",
                    "-c",
                    request["entrypoint"],
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=theirs,
                    stderr=theirs,
                    env=self._environment(request, token_file),
                    start_new_session=True,
                )
            except BaseException:
                os.close(ours)
                raise
            finally:
                os.close(theirs)
            reading = asyncio.create_task(printed.read(ours))
            storing = asyncio.create_task(printed.store())
            stopping = asyncio.create_task(self._stop_when_asked(process))
            exit_code = await process.wait()
            stopped = stopping.done()
            stopping.cancel()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reading, _AFTER_END_S)
            printed.end()
            await asyncio.wait([storing, stopping])
            _kill_group(process.pid, signal.SIGKILL)
            return exit_code, stopped

    def _environment(self, request: dict[str, Any], token_file: Path) -> dict[str, str]:
        environment = {name: value for name, value in os.environ.items() if name != TOKEN_VARIABLE}
        job = variable(self._submission_id, request.get("metadata") or {}, _context.process.runtime_env)
        paths = [*_context.process.import_paths, *filter(None, [environment.get("PYTHONPATH")])]
        environment |= {
            "SHOAL_ADDRESS": self._core.gcs.address,
            TOKEN_PATH_VARIABLE: str(token_file),
            JOB_VARIABLE: job,
            "PYTHONUNBUFFERED": "1",
            "PATH": f"{Path(sys.executable).parent}:{environment.get('PATH', os.defpath)}",
        }
        if paths:
            environment["PYTHONPATH"] = os.pathsep.join(paths)
        return environment

    async def _stop_when_asked(self, process: asyncio.subprocess.Process) -> None:
        """Returns when it was to be stopped, and was told so."""
        while True:
            await asyncio.sleep(_ASK_EVERY_S)
            try:
                record: SubmissionRecord = await asyncio.to_thread(self._core.gcs.submissions.get, self._submission_id)
            except RpcError:
                continue  # asked again: a GCS that is away stops nothing
            if record.stop_requested:
                break
        _kill_group(process.pid, signal.SIGTERM)
        asyncio.get_running_loop().call_later(_GRACE_S, _kill_group, process.pid, signal.SIGKILL)

    async def _ask(self, question: Any) -> Any:
        """None = there is no such submission (any more), or nobody answers for very long."""
        from shoal._net.gcs.errors import NotFound

        deadline = asyncio.get_running_loop().time() + _TELL_FOR_S
        while True:
            try:
                return await asyncio.to_thread(question)
            except NotFound:
                return None
            except RpcError as error:
                if asyncio.get_running_loop().time() > deadline:
                    _log.error("The GCS did not take what became of job %s: %s", self._submission_id, error)
                    return None
            await asyncio.sleep(_PAUSE_S)


class _Printed:
    """What one attempt prints, on its way to the log."""

    def __init__(self, log: JobLog) -> None:
        self._log = log
        self._waiting = bytearray()
        self._last = b""
        self._ended = False
        self._more = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def add(self, data: bytes) -> None:
        self._waiting += data
        self._last = (self._last + data)[-40_000:]
        if len(self._waiting) >= _STORE_AT_BYTES:
            self._more.set()
        if len(self._waiting) >= _HELD_BYTES:
            self._room.clear()

    def last_lines(self) -> str:
        return self._last.decode("utf-8", "replace")

    def end(self) -> None:
        self._ended = True
        self._more.set()

    async def read(self, descriptor: int) -> None:
        """Until the other end is closed; closes it."""
        stream = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(descriptor, "rb", buffering=0)
        )
        try:
            while data := await stream.read(65536):
                self.add(data)
                await self._room.wait()
        finally:
            transport.close()

    async def store(self) -> None:
        """Until ``end``, and all is stored; a store that is away is tried again, after the end for a bounded time."""
        loop = asyncio.get_running_loop()
        give_up = None
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._more.wait(), _STORE_EVERY_S)
            if not self._ended:
                self._more.clear()
            taken = bytes(self._waiting)
            if taken:
                try:
                    await self._log.append(taken)
                except ServiceError as error:
                    if self._ended:
                        give_up = give_up or loop.time() + _TELL_FOR_S
                        if loop.time() > give_up:
                            _log.error("The end of the output of the job is lost: %s", error)
                            return
                    await asyncio.sleep(_PAUSE_S)
                    continue
                del self._waiting[: len(taken)]
                self._room.set()
            if self._ended and not self._waiting:
                return


def _write_secret(directory: str, token: str) -> Path:
    path = Path(directory, "token")
    path.touch(mode=0o600)
    path.write_text(token)
    return path


def _kill_group(pid: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # all of it has ended
        os.killpg(pid, signum)
