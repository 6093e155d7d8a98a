"""What the cluster's dashboard knows: rows of every resource, one of them, counts; the same as on its pages."""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlencode

import click

from shoal._cli.output import format_option, shown
from shoal._session.dashboards import dashboard_client
from shoal.util.state import StateApiClient
from shoal.util.state.common import (
    DEFAULT_LIMIT,
    DEFAULT_RPC_TIMEOUT,
    FilterType,
    GetApiOptions,
    ListApiOptions,
    StateResource,
    SummaryApiOptions,
    SummaryResource,
)
from shoal_common.state_rows import MAX_LIMIT, RESOURCES, ObjectState

_address = click.option(
    "--address",
    help="Of the dashboard, http(s)://host:port, or host:port of a GCS; default: SHOAL_DASHBOARD_ADDRESS, "
    "SHOAL_ADDRESS, else what runs here.",
)
_limit = click.option(
    "--limit", type=click.IntRange(1, MAX_LIMIT), default=DEFAULT_LIMIT, help=f"Rows; default: {DEFAULT_LIMIT}."
)
_timeout = click.option("--timeout", type=click.IntRange(min=1), default=DEFAULT_RPC_TIMEOUT, help="In seconds.")


def _filters(_ctx: click.Context, _param: click.Parameter, given: Sequence[str]) -> list[FilterType]:
    filters: list[FilterType] = []
    for text in given:
        key, predicate, value = text.partition("!=") if "!=" in text else text.partition("=")
        if not predicate or not key.strip():
            raise click.BadParameter(f"{text!r} is neither column=value nor column!=value")
        filters.append((key.strip(), predicate, value.strip()))
    return filters


_filter = click.option(
    "-f", "--filter", "filters", multiple=True, callback=_filters, help="column=value or column!=value; all are met."
)


def _resource(names: Sequence[str]) -> Callable[[Any], Any]:
    """The words of Ray's command, too, which have hyphens."""
    return click.argument("resource", type=click.Choice([name.replace("_", "-") for name in names]))


@click.command("list", help="List RESOURCE: filters come before the limit, and the newest first.")
@_resource([each.value for each in StateResource])
@_filter
@click.option(
    "--limit", type=click.IntRange(1, MAX_LIMIT), default=DEFAULT_LIMIT, help=f"Rows; default: {DEFAULT_LIMIT}."
)
@click.option("--detail", is_flag=True, help="All columns, as YAML unless --format says otherwise.")
@format_option
@_timeout
@_address
def list_command(
    resource: str, filters: list[FilterType], limit: int, detail: bool, form: str, timeout: int, address: str | None
) -> None:
    what = StateResource(resource.replace("-", "_"))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        options = ListApiOptions(limit, timeout, detail, filters)
        rows = StateApiClient(address).list(what, options, raise_on_missing_output=False, _explain=True)
    columns = RESOURCES[what.value].columns(detail=detail)
    if form == "default" and not rows:
        which = f" with {', '.join(map(''.join, filters))}" if filters else ""
        print(f"There are no {resource.replace('-', ' ')}{which}.")
    else:
        form = ("yaml" if detail else "table") if form == "default" else form
        sys.stdout.write(shown([{name: row[name] for name in columns} for row in rows], columns, form))
    for each in told:
        print(each.message, file=sys.stderr)


@click.command(help="Show all that is known of one RESOURCE. ID: of a job its submission id.")
@_resource(
    [each.value for each in StateResource if each not in (StateResource.RUNTIME_ENVS, StateResource.CLUSTER_EVENTS)]
)
@click.argument("id")
@format_option
@_timeout
@_address
def get(resource: str, id: str, form: str, timeout: int, address: str | None) -> None:
    what = StateResource(resource.replace("-", "_"))
    found = StateApiClient(address).get(what, id, GetApiOptions(timeout))
    if found is None:
        raise RuntimeError(f"there is no such {resource.removesuffix('s')}: {id}")
    rows = [row.asdict() for row in (found if isinstance(found, list) else [found])]
    sys.stdout.write(shown(rows, list(rows[0]), "yaml" if form == "default" else form))


@click.command(help="Count tasks, actors or objects: exactly, also where lists are cut.")
@_resource([each.value for each in SummaryResource])
@format_option
@_timeout
@_address
def summary(resource: str, form: str, timeout: int, address: str | None) -> None:
    what = SummaryResource(resource)
    counted = StateApiClient(address).summary(what, options=SummaryApiOptions(timeout), raise_on_missing_output=False)[
        "cluster"
    ]
    rows = [_summary_row(key, each) for key, each in counted["summary"].items()]
    columns = list(rows[0]) if rows else ["name"]
    sys.stdout.write(shown(rows, columns, "table" if form == "default" else form))
    if form == "default":
        totals = {name: value for name, value in counted.items() if name.startswith("total_")}
        print("".join(f"\n{name.replace('_', ' ')}: {value}" for name, value in totals.items()).lstrip("\n"))


def _summary_row(key: str, counts: Any) -> dict[str, Any]:
    """Its states as one text, as "FINISHED 3, RUNNING 1"."""
    row: dict[str, Any] = {"name": key}
    for name, value in counts.items():
        if isinstance(value, dict):
            row[name] = ", ".join(f"{state} {count}" for state, count in sorted(value.items()))
        elif name not in ("func_or_class_name", "class_name"):
            row[name] = value
    return row


@click.command(help="Show who holds what: objects in the nodes' stores, the largest first, and their sum by node.")
@click.option(
    "--limit", type=click.IntRange(1, MAX_LIMIT), default=DEFAULT_LIMIT, help=f"Rows; default: {DEFAULT_LIMIT}."
)
@format_option
@_timeout
@_address
def memory(limit: int, form: str, timeout: int, address: str | None) -> None:
    options = ListApiOptions(MAX_LIMIT, timeout, detail=True)
    objects = StateApiClient(address).list(StateResource.OBJECTS, options, raise_on_missing_output=False)
    objects.sort(key=lambda row: (-(row["object_size"] or 0), row["object_id"]))
    columns = ObjectState.columns()
    rows = [{name: row[name] for name in columns} for row in objects[:limit]]
    sys.stdout.write(shown(rows, columns, "table" if form == "default" else form))
    if form == "default":
        sums: Counter[str] = Counter()
        for row in objects:
            sums[row["ip"] or "?"] += row["object_size"] or 0
        told = ", ".join(f"{size / 2**20:,.1f} MiB at {ip}" for ip, size in sums.most_common())
        print(f"\n{len(objects)} objects{': ' + told if told else ''}")


@click.command(help="Write what ran when to FILE, a Chrome trace for https://ui.perfetto.dev; of a dashboard.")
@click.argument("file", type=click.Path(dir_okay=False), default="timeline.json")
@click.option("--job", default="", help="Id of a job; default: of all.")
@_timeout
@_address
def timeline(file: str, job: str, timeout: int, address: str | None) -> None:
    query = urlencode({"job_id": job}) if job else ""
    size = 0
    with open(file, "wb") as written:
        for piece in dashboard_client(address).stream(f"api/v0/tasks/timeline?{query}", timeout):
            size += written.write(piece)
    print(f"Wrote {size:,} bytes to {file}.")
