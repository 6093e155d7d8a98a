"""``/metrics``: the dashboard's process, and the tasks that it counts; ``/api/prometheus/sd``: where raylets are."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from shoal_common.rpc.server import join_address
from shoal_common.service.metrics import (
    CONTENT_TYPE,
    OPENMETRICS_TYPE,
    Family,
    Sample,
    grouped,
    render,
    sample,
)
from shoal_common.service.process_metrics import process_samples
from shoal_dashboard.context import Context
from shoal_dashboard.events.rows import STATES, FunctionCounts
from shoal_proto.v1 import gcs_pb2 as pb

TASKS = Family("shoal_tasks", "gauge", "tasks by state, of the jobs whose events are kept")
RETRIED = Family("shoal_tasks_retried", "gauge", "attempts that were followed by another one")
LOST = Family(
    "shoal_task_events_lost", "counter", "rows of tasks that were lost on the way; their outcomes are counted"
)
RAY_TASKS = Family("ray_tasks", "gauge", "tasks by state and function, for Ray's boards")
FAMILIES = (TASKS, RETRIED, LOST, RAY_TASKS)
#: Functions that Ray's boards are told by name, those with most tasks; the others are added up.
MAX_NAMES = 500
_OTHERS = "(others)"


def routes(context: Context) -> list[BaseRoute]:
    started_at = time.time()

    async def metrics(request: Request) -> Response:
        samples = list(process_samples(started_at))
        if context.tasks is not None:
            session_name = (await context.cluster.about()).session_name
            samples += task_samples(await context.tasks.counts(), session_name)
            samples.append(sample(LOST, (await context.tasks.summary()).lost))
        openmetrics = "application/openmetrics-text" in request.headers.get("accept", "")
        text = render(grouped(samples), openmetrics=openmetrics)
        return Response(text, media_type=OPENMETRICS_TYPE if openmetrics else CONTENT_TYPE)

    async def targets(_request: Request) -> Response:
        about = await context.cluster.about()
        labels = {"job": "shoal-raylet", "cluster": about.cluster_id, "SessionName": about.session_name}
        return JSONResponse(
            [
                {
                    "targets": [join_address(node.host, node.metrics_port)],
                    "labels": {**labels, "node": node.node_id.hex()},
                }
                for node in await context.cluster.nodes()
                if node.state != pb.NODE_STATE_DEAD and node.metrics_port > 0
            ],
            headers={"Cache-Control": "no-store"},
        )

    return [Route("/metrics", metrics), Route("/api/prometheus/sd", targets)]


def task_samples(counts: Iterable[FunctionCounts], session_name: str) -> Iterator[Sample]:
    by_state: Counter[str] = Counter()
    by_function: dict[str, Counter[str]] = {}
    retried = 0
    for each in counts:
        by_state.update(each.states)
        by_function.setdefault(each.func_or_class_name, Counter()).update(each.states)
        retried += each.retried
    for state in STATES:
        yield sample(TASKS, by_state[state], state=state.lower())
    yield sample(RETRIED, retried)
    names = sorted(by_function, key=lambda name: -by_function[name].total())
    told: dict[str, Counter[str]] = {name: by_function[name] for name in names[:MAX_NAMES]}
    for name in names[MAX_NAMES:]:
        told.setdefault(_OTHERS, Counter()).update(by_function[name])
    for name, states in told.items():
        for state, count in states.items():
            labels = {"Name": name, "State": state, "IsRetry": "0", "Source": "owner", "SessionName": session_name}
            yield sample(RAY_TASKS, count, **labels)
