"""``shoal job``: programs handed in to the cluster, by way of its dashboard."""

from __future__ import annotations

import dataclasses
import json
import shlex
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from shoal.job_submission import JobSubmissionClient

_address = click.option(
    "--address",
    help="of the dashboard, http(s)://host:port [default: SHOAL_DASHBOARD_ADDRESS, RAY_API_SERVER_ADDRESS]",
)
_headers = click.option("--headers", help="of each request, a JSON object")
_id = click.argument("job_id")


def _client(address: str | None, headers: str | None) -> JobSubmissionClient:
    from shoal.job_submission import JobSubmissionClient

    return JobSubmissionClient(address, headers=_object("--headers", headers))


def _object(name: str, text: str | None) -> Any:
    if text is None:
        return None
    try:
        found = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"{name} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise click.BadParameter(f"{name} must be a JSON object")
    return found


@click.group(help="Hand in programs to be run on the cluster, and look after them.")
def job() -> None:
    """Its commands are below."""


@job.command(help="Run ENTRYPOINT on the cluster, and follow what it prints. Exits with 1 when it fails.")
@_address
@_headers
@click.option("--submission-id", help="[default: a new one]")
@click.option("--working-dir", help="directory or URI of an archive in which it runs; directories are uploaded")
@click.option("--runtime-env", "env_file", type=click.File(), help="YAML or JSON file of its runtime environment")
@click.option("--runtime-env-json", help="the same as JSON")
@click.option("--metadata-json", help="a JSON object of strings, kept with the job")
@click.option("--entrypoint-num-cpus", type=float)
@click.option("--entrypoint-num-gpus", type=float)
@click.option("--entrypoint-memory", type=int, help="in bytes")
@click.option("--entrypoint-resources", help="a JSON object of amounts by name")
@click.option("--entrypoint-label-selector", help="a JSON object: labels of the node that it runs on")
@click.option("--priority", type=int, default=0, help="the greater begins first, where jobs wait for others")
@click.option("--max-restarts", type=int, default=0, help="it is tried again so many times; -1 = for ever")
@click.option("--no-wait", is_flag=True, help="do not follow it")
@click.argument("entrypoint", nargs=-1, required=True, type=click.UNPROCESSED)
def submit(
    address: str | None,
    headers: str | None,
    submission_id: str | None,
    working_dir: str | None,
    env_file: Any,
    runtime_env_json: str | None,
    metadata_json: str | None,
    entrypoint_resources: str | None,
    entrypoint_label_selector: str | None,
    no_wait: bool,
    entrypoint: tuple[str, ...],
    **options: Any,
) -> int:
    if env_file is not None and runtime_env_json is not None:
        raise click.UsageError("--runtime-env and --runtime-env-json exclude one another")
    environment = _object("--runtime-env-json", runtime_env_json) or {}
    if env_file is not None:
        environment = _object("--runtime-env", env_file.read()) or {}
    if working_dir is not None:
        environment["working_dir"] = working_dir
    client = _client(address, headers)
    submitted = client.submit_job(
        # A single argument is a shell command as it is.
        entrypoint=shlex.join(entrypoint) if len(entrypoint) > 1 else entrypoint[0],
        submission_id=submission_id,
        runtime_env=environment,
        metadata=_object("--metadata-json", metadata_json),
        entrypoint_resources=_object("--entrypoint-resources", entrypoint_resources),
        entrypoint_label_selector=_object("--entrypoint-label-selector", entrypoint_label_selector),
        **options,
    )
    click.echo(f"Job '{submitted}' submitted to {client.get_address()}", err=True)
    if no_wait:
        click.echo(submitted)
        return 0
    return _follow(client, submitted)


def _follow(client: JobSubmissionClient, job_id: str) -> int:
    for text in client.follow_job_logs(job_id):
        click.echo(text, nl=False)
    info = client.get_job_info(job_id)
    # What it printed last was seen already.
    message = info.message or ""
    if info.error_type == "JOB_ENTRYPOINT_COMMAND_ERROR":
        message = message.partition(", last available logs")[0]
    click.echo(f"Job '{job_id}' {info.status.lower()}: {message}", err=True)
    return 0 if info.status == "SUCCEEDED" else 1


@job.command("list", help="All jobs, the newest first: those handed in, and drivers that somebody started.")
@_address
@_headers
@click.option("--json", "as_json", is_flag=True, help="all fields, as JSON")
def list_(address: str | None, headers: str | None, as_json: bool) -> None:
    jobs = _client(address, headers).list_jobs()
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(each) for each in jobs], indent=2))
        return
    for each in jobs:
        name = each.submission_id or f"driver {each.job_id}"
        of_named_job = f"  ({each.message})" if each.submission_id is None and each.message else ""
        click.echo(f"{name}  {each.status.lower()}  {each.entrypoint[:100]}{of_named_job}")


@job.command(help="What is known of a job. Exits with 1 when it has failed.")
@_address
@_headers
@_id
def status(address: str | None, headers: str | None, job_id: str) -> int:
    info = _client(address, headers).get_job_info(job_id)
    click.echo(f"Job '{job_id}' {info.status.lower()}: {info.message or ''}".rstrip(": "))
    return 1 if info.status == "FAILED" else 0


@job.command(help="What a job has printed.")
@_address
@_headers
@click.option("--follow", "-f", is_flag=True, help="and what it prints, until it ends; exits with 1 when it fails")
@_id
def logs(address: str | None, headers: str | None, follow: bool, job_id: str) -> int:
    client = _client(address, headers)
    if follow:
        return _follow(client, job_id)
    click.echo(client.get_job_logs(job_id), nl=False)
    return 0


@job.command(help="End a job, and all that it has started.")
@_address
@_headers
@_id
def stop(address: str | None, headers: str | None, job_id: str) -> None:
    stopped = _client(address, headers).stop_job(job_id)
    click.echo(f"Job '{job_id}' is being stopped" if stopped else f"Job '{job_id}' had ended")


@job.command(help="Forget a job that has ended, and what it printed.")
@_address
@_headers
@_id
def delete(address: str | None, headers: str | None, job_id: str) -> None:
    _client(address, headers).delete_job(job_id)
    click.echo(f"Job '{job_id}' is forgotten")
