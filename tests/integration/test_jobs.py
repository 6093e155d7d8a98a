"""Submitted jobs: through the dashboard's REST, on a real cluster."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import textwrap
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.processes import PATIENCE_S, eventually
from support.servers import free_port

import shoal
from shoal import _current
from shoal.cli import main
from shoal.job_submission import JobDetails, JobStatus, JobSubmissionClient, JobType


@pytest.fixture(scope="module")
def client() -> Iterator[JobSubmissionClient]:
    """A cluster of two nodes' worth of CPUs, and its dashboard."""
    context = shoal.init(num_cpus=2, resources={"special": 1})
    core = _current.current()
    port = free_port()
    environment = {**os.environ, "SHOAL_AUTH_TOKEN": core.gcs.token}
    command = [sys.executable, "-m", "shoal_dashboard", "--port", str(port), "--gcs-address", context["gcs_address"]]
    with subprocess.Popen(command, env=environment) as dashboard, pytest.MonkeyPatch.context() as patch:
        try:
            patch.setenv("SHOAL_AUTH_TOKEN", core.gcs.token)
            patch.setenv("SHOAL_DASHBOARD_ADDRESS", f"http://127.0.0.1:{port}")
            client = JobSubmissionClient()
            eventually(lambda: _answers(client), "the dashboard answers")
            yield client
        finally:
            dashboard.terminate()
    shoal.shutdown()


def _answers(client: JobSubmissionClient) -> bool:
    try:
        return client.get_version() == "4"
    except ConnectionError:
        return False


def ended(client: JobSubmissionClient, submission_id: str) -> JobDetails:
    eventually(lambda: client.get_job_status(submission_id).is_terminal(), f"{submission_id} ends")
    return client.get_job_info(submission_id)


PROGRAM = """
    import os, sys, shoal as ray
    ray.init()
    @ray.remote
    def f(x): return x * x, os.environ.get("SHOWN")
    print(sum(value for value, _ in ray.get([f.remote(i) for i in range(10)])), ray.get(f.remote(0))[1])
    print(os.path.basename(os.getcwd()), os.listdir("."), sys.argv[1:])
"""


def test_a_program_of_a_local_directory(client: JobSubmissionClient, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(textwrap.dedent(PROGRAM))
    submission_id = client.submit_job(
        entrypoint="python main.py --flag",
        runtime_env={"working_dir": str(tmp_path), "env_vars": {"SHOWN": "yes"}},
        metadata={"owner": "me"},
    )
    info = ended(client, submission_id)
    logs = client.get_job_logs(submission_id)
    assert info.status == JobStatus.SUCCEEDED, logs
    assert "285 yes" in logs
    assert "['main.py'] ['--flag']" in logs
    assert (info.type, info.driver_exit_code, info.metadata) == (JobType.SUBMISSION, 0, {"owner": "me"})
    driver = eventually(lambda: client.get_job_info(submission_id).driver_info, "its driver is known")
    assert client.get_job_info(driver.id).submission_id == submission_id, "found by the driver's job, too"
    assert info.end_time is not None and info.start_time is not None and info.end_time >= info.start_time


def test_a_program_that_fails_is_tried_again_and_says_how_it_ended(client: JobSubmissionClient) -> None:
    submission_id = client.submit_job(entrypoint="echo tried; exit 3", max_restarts=1, submission_id="fails")
    info = ended(client, submission_id)
    assert (info.status, info.driver_exit_code, info.attempt) == (JobStatus.FAILED, 3, 2)
    assert info.error_type == "JOB_ENTRYPOINT_COMMAND_ERROR"
    assert "exit code 3" in (info.message or "")
    assert client.get_job_logs("fails") == "tried\n--- attempt 2 ---\ntried\n"
    with pytest.raises(RuntimeError, match="fails already exists"):
        client.submit_job(entrypoint="true", submission_id="fails")
    assert client.delete_job("fails")
    with pytest.raises(RuntimeError, match="does not exist"):
        client.get_job_info("fails")


def test_output_is_followed_to_the_end_and_stop_ends_all_that_was_started(
    client: JobSubmissionClient, tmp_path: Path
) -> None:
    script = f"echo begun; setsid sleep 1000 & echo $! > {tmp_path}/pid; trap '' TERM; sleep 1000"
    submission_id = client.submit_job(entrypoint=script)
    lines = client.follow_job_logs(submission_id)
    assert next(lines) == "begun\n"
    with pytest.raises(RuntimeError, match="RUNNING"):
        client.delete_job(submission_id)
    assert client.stop_job(submission_id)
    assert list(lines) == []
    assert ended(client, submission_id).status == JobStatus.STOPPED
    assert not client.stop_job(submission_id)
    pid = int((tmp_path / "pid").read_text())
    eventually(lambda: not Path(f"/proc/{pid}").exists(), "what left the session has ended, too")


def test_a_job_waits_for_what_it_asks_for_and_can_be_stopped(client: JobSubmissionClient) -> None:
    first = client.submit_job(entrypoint="sleep 1000", entrypoint_resources={"special": 1})
    eventually(lambda: client.get_job_status(first) == JobStatus.RUNNING, "it runs")
    second = client.submit_job(entrypoint="echo second", entrypoint_resources={"special": 1})
    third = client.submit_job(entrypoint="echo third", entrypoint_resources={"special": 1})
    assert client.stop_job(third)
    assert ended(client, third).status == JobStatus.STOPPED
    assert client.get_job_status(second) == JobStatus.PENDING
    client.stop_job(first)
    assert ended(client, second).status == JobStatus.SUCCEEDED
    assert client.get_job_logs(third) == ""
    listed = [each.submission_id for each in client.list_jobs()]
    assert listed.index(third) < listed.index(second) < listed.index(first), "the newest first"
    assert {each.type for each in client.list_jobs()} == {JobType.SUBMISSION, JobType.DRIVER}


def test_an_environment_that_cannot_be_made(client: JobSubmissionClient) -> None:
    submission_id = client.submit_job(
        entrypoint="true", runtime_env={"working_dir": "https://127.0.0.1:1/nothing.zip", "config": {}}
    )
    info = ended(client, submission_id)
    assert (info.status, info.error_type) == (JobStatus.FAILED, "RUNTIME_ENV_SETUP_FAILURE")


def test_a_program_that_cannot_be_started(client: JobSubmissionClient) -> None:
    """Linux takes no argument of more than 128 KiB."""
    details = ended(client, client.submit_job(entrypoint="echo " + "ü" * 70_000))
    assert details.status == JobStatus.FAILED
    assert "could not be started: [Errno 7]" in details.message


def test_much_output(client: JobSubmissionClient) -> None:
    """More than fits into one part, and into what is held."""
    submission_id = client.submit_job(entrypoint="seq 1 400000")

    async def follow() -> str:
        return "".join([text async for text in client.tail_job_logs(submission_id)])

    expected = "".join(f"{n}\n" for n in range(1, 400001))
    assert asyncio.run(follow()) == expected
    assert client.get_job_logs(submission_id) == expected


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "not JSON"),
        (b"[]", "must be a JSON object"),
        (b'{"entrypoint": ""}', "entrypoint must be"),
        (b'{"entrypoint": "x", "nonsense": 1}', "no field 'nonsense'"),
        (b'{"entrypoint": "x", "entrypoint_num_cpus": -1}', "entrypoint_num_cpus must be"),
        (b'{"entrypoint": "x", "entrypoint_num_cpus": NaN}', "NaN"),
        (b'{"entrypoint": "echo \\ud83d", "submission_id": "s3"}', "surrogate"),
        (b'{"entrypoint": "x", "submission_id": "a/b"}', "path"),
        (b'{"entrypoint": "x", "metadata": {"a": 1}}', "metadata must be"),
        (b'{"entrypoint": "x", "max_restarts": -2}', "max_restarts must be"),
        (b'{"entrypoint": "x", "runtime_env": {"working_dir": "/tmp"}}', "path of the client's machine"),
        (b'{"entrypoint": "x", "runtime_env": {"nonsense": 1}}', "nonsense"),
        (b'{"entrypoint": "x", "runtime_env": {"working_dir": "gcs://_ray_pkg_0.zip"}}', "upload it first"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(client: JobSubmissionClient, body: bytes, says: str) -> None:
    status, text = request(client, "POST", "api/jobs/", body)
    assert status == 400
    assert says in text


def test_packages_are_stored_by_rays_names_too(client: JobSubmissionClient) -> None:
    name = "api/packages/gcs/_ray_pkg_0123456789abcdef.zip"
    assert request(client, "GET", name)[0] == 404
    assert request(client, "PUT", name, b"bytes")[0] == 400, "no archive"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writing:
        writing.writestr("main.py", "print('there')")
    assert request(client, "PUT", name, archive.getvalue())[0] == 200
    assert request(client, "GET", name)[0] == 200
    wrong = f"api/packages/gcs/_shoal_pkg_{'0' * 64}.zip"
    assert request(client, "PUT", wrong, b"bytes")[0] == 400, "not what the name says"
    for bad in ("api/packages/file/x.zip", "api/packages/gcs/..%2Fx.zip", "api/packages/gcs/x.tar"):
        assert request(client, "PUT", bad, b"bytes")[0] in (400, 404)


def request(client: JobSubmissionClient, method: str, path: str, body: bytes | None = None) -> tuple[int, str]:
    wanted = urllib.request.Request(
        f"{client.get_address()}/{path}",
        body,
        {"Authorization": f"Bearer {os.environ['SHOAL_AUTH_TOKEN']}"},
        method=method,
    )
    try:
        with urllib.request.urlopen(wanted, timeout=PATIENCE_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_the_command(client: JobSubmissionClient, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["job", "submit", "--submission-id", "typed", "--", "echo", "a b", ";", "exit", "7"]) == 0
    assert capsys.readouterr().out == "a b ; exit 7\n", "several arguments are no shell command"
    assert main(["job", "submit", "--submission-id", "failed", "echo no; exit 7"]) == 1
    out, err = capsys.readouterr()
    assert (out, "exit code 7" in err) == ("no\n", True)
    assert main(["job", "logs", "--follow", "failed"]) == 1
    assert main(["job", "logs", "typed"]) == 0
    assert capsys.readouterr().out == "no\na b ; exit 7\n"
    assert main(["job", "status", "failed"]) == 1
    assert main(["job", "stop", "typed"]) == 0
    assert main(["job", "list"]) == 0
    assert "had ended" in (out := capsys.readouterr().out)
    assert "typed  succeeded  echo 'a b'" in out
    assert main(["status", "--address", _current.current().gcs.address]) == 0
    assert "JobSupervisor" not in capsys.readouterr().out, "what became of jobs, `shoal job list` says"
    assert main(["job", "delete", "failed"]) == 0
    assert main(["job", "status", "failed"]) == 1
    assert "failed does not exist" in capsys.readouterr().err
    assert main(["job", "submit", "--runtime-env-json", "{", "true"]) == 2
