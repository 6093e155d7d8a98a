"""``JobSubmissionClient``: hand in programs and ask for them, by the dashboard's REST. Needs no session."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from shoal._net.dashboard import DashboardClient
from shoal._session.dashboards import dashboard_client
from shoal._session.packages import uploaded
from shoal.job_submission.details import JobDetails, JobStatus
from shoal.runtime_env import RuntimeEnv
from shoal_common.placement.runtime_env import package_uri

#: Output is asked for so much at a time, and the answer waits so long for some: in bytes and seconds.
_PIECE_BYTES = 1 << 20
_WAIT_S = 20.0
#: A package of any size is uploaded by then, in seconds.
_UPLOAD_S = 600.0


class JobSubmissionClient:
    """``address``: of the dashboard, ``http(s)://host:port``; None = SHOAL_DASHBOARD_ADDRESS, else the one of the
    cluster on this machine. ``metadata``: of each job that is handed in. ``headers``: of each request.

    Methods raise: RuntimeError with what the dashboard says is wrong, ConnectionError (nobody there),
    AuthenticationError (no token, or a wrong one).
    """

    def __init__(
        self,
        address: str | None = None,
        create_cluster_if_needed: bool = False,
        cookies: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        verify: str | bool | None = True,
    ) -> None:
        if create_cluster_if_needed:
            raise ValueError("create_cluster_if_needed is not implemented: start one with `shoal start --head` first")
        self._dashboard = dashboard_client(address, headers=headers, cookies=cookies, verify=verify)
        self._metadata = dict(metadata or {})

    def get_address(self) -> str:
        return self._dashboard.address

    def get_version(self) -> str:
        """Of the REST interface."""
        return str(self._dashboard.get("api/version")["version"])

    def submit_job(
        self,
        *,
        entrypoint: str,
        job_id: str | None = None,
        runtime_env: Mapping[str, Any] | None = None,
        metadata: Mapping[str, str] | None = None,
        submission_id: str | None = None,
        entrypoint_num_cpus: float | None = None,
        entrypoint_num_gpus: float | None = None,
        entrypoint_memory: int | None = None,
        entrypoint_resources: Mapping[str, float] | None = None,
        entrypoint_label_selector: Mapping[str, str] | None = None,
        priority: int = 0,
        max_restarts: int = 0,
    ) -> str:
        """Hand in a program; returns its submission id.

        ``entrypoint`` is a shell command. It runs on a node that has ``entrypoint_num_cpus`` and so on (all 0 by
        default), in ``runtime_env``, whose local directories are uploaded. ``priority``: where the cluster limits how
        many run at once, the greater begins first. ``max_restarts``: it is tried again so many times when it fails or
        its node is lost (-1 = for ever).

        Raises: ValueError (the environment cannot be), RuntimeError (``submission_id`` is taken).
        """
        if job_id is not None:
            raise ValueError("job_id is an old name of submission_id: use that")
        environment = uploaded(_DashboardUploads(self._dashboard), RuntimeEnv(**runtime_env or {}))
        document = {
            "entrypoint": entrypoint,
            "submission_id": submission_id,
            "runtime_env": environment,
            "metadata": {**self._metadata, **(metadata or {})},
            "entrypoint_num_cpus": entrypoint_num_cpus,
            "entrypoint_num_gpus": entrypoint_num_gpus,
            "entrypoint_memory": entrypoint_memory,
            "entrypoint_resources": entrypoint_resources,
            "entrypoint_label_selector": entrypoint_label_selector,
            "priority": priority or None,
            "max_restarts": max_restarts or None,
        }
        given = {name: value for name, value in document.items() if value is not None}
        return str(self._dashboard.post("api/jobs/", given)["submission_id"])

    def stop_job(self, job_id: str) -> bool:
        """False = it had ended."""
        return bool(self._dashboard.post(f"{_path(job_id)}/stop", {})["stopped"])

    def delete_job(self, job_id: str) -> bool:
        """Forget a job that has ended, and its output. Raises: RuntimeError for one that has not."""
        return bool(self._dashboard.delete(_path(job_id))["deleted"])

    def get_job_info(self, job_id: str) -> JobDetails:
        """``job_id``: of the submission or of the job, as in all methods."""
        return JobDetails.from_json(self._dashboard.get(_path(job_id)))

    def get_job_status(self, job_id: str) -> JobStatus:
        return self.get_job_info(job_id).status

    def list_jobs(self) -> list[JobDetails]:
        """Submitted ones and plain drivers, the newest first."""
        return [JobDetails.from_json(each) for each in self._dashboard.get("api/jobs/")]

    def get_job_logs(self, job_id: str) -> str:
        """What it has printed; of much, the newest 64 MiB."""
        return str(self._dashboard.get(f"{_path(job_id)}/logs")["logs"])

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        """What it has printed and prints, until it has ended."""
        pieces = self.follow_job_logs(job_id)
        while (text := await asyncio.to_thread(next, pieces, None)) is not None:
            yield text

    def follow_job_logs(self, job_id: str) -> Iterator[str]:
        """As ``tail_job_logs``, for programs without an event loop."""
        offset = 0
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while True:
            query = f"offset={offset}&limit={_PIECE_BYTES}&wait_s={_WAIT_S:g}"
            piece = self._dashboard.get(f"{_path(job_id)}/logs/piece?{query}")
            if piece["start"] > offset:
                yield f"[{piece['start'] - offset:,} bytes are not kept any more]\n"
            offset = piece["end"]
            if text := decoder.decode(bytes.fromhex(piece["data"]), final=piece["ended"]):
                yield text
            if piece["ended"]:
                return


class _DashboardUploads:
    """Packages by way of the dashboard."""

    def __init__(self, dashboard: DashboardClient) -> None:
        self._dashboard = dashboard
        self.session = dashboard.address

    def store(self, file: IO[bytes], digest: str, suffix: str, size: int, path: Path) -> None:
        protocol, _, name = package_uri(digest, suffix).partition("://")
        at = f"api/packages/{protocol}/{name}"
        if not self._dashboard.exists(at):
            self._dashboard.put(at, file, size, _UPLOAD_S)


def _path(job_id: str) -> str:
    return f"api/jobs/{quote(job_id, safe='')}"
