"""Metrics of users' own, from tasks and actors to what Prometheus reads."""

from __future__ import annotations

import asyncio
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from support.certificates import Authority
from support.processes import PATIENCE_S, eventually

import shoal
from shoal.util.metrics import Counter, Gauge, Histogram
from shoal_common.service.measured import ServedMetrics
from shoal_common.service.metrics import Sample, sample
from shoal_common.service.metrics_server import MetricsServer
from shoal_gcs import measurements as gcs
from shoal_gcs.config import GcsConfig
from shoal_objectstore import measurements as objectstore
from shoal_raylet import measurements as raylet
from shoal_scheduler import measurements as scheduler


def scrape() -> dict[str, float]:
    """Values by name and tags; those of the node's and job's labels left out."""
    (node,) = shoal.nodes()
    with urllib.request.urlopen(f"http://127.0.0.1:{node['MetricsExportPort']}/metrics", timeout=PATIENCE_S) as reply:
        lines = reply.read().decode().splitlines()
    job, node_id = shoal.get_runtime_context().get_job_id(), node["NodeID"]
    labels = f'JobId="{job}",NodeId="{node_id}"'
    samples = (line.replace(labels, "").rpartition(" ") for line in lines if not line.startswith("#"))
    return {name.replace("{,", "{").replace("{}", ""): float(value) for name, _, value in samples}


def shows(expected: dict[str, float]) -> Callable[[], bool]:
    return lambda: expected.items() <= scrape().items()


def test_tasks_actors_and_the_driver_count_together(cluster: None) -> None:
    runs = Counter("runs", "how often", tag_keys=("kind",)).set_default_tags({"kind": "plain"})
    took = Histogram("took_s", boundaries=[1, 10])
    heat = Gauge("heat")

    @shoal.remote
    def task(seconds: float) -> None:
        runs.inc()
        took.observe(seconds)

    @shoal.remote
    class Actor:
        def warm(self, degrees: float) -> None:
            heat.set(degrees)
            runs.inc(2, tags={"kind": "call"})

        def leave(self) -> None:
            runs.inc(tags={"kind": "last"})
            shoal.actor.exit_actor()

    actor = Actor.remote()
    shoal.get([task.remote(0.5), task.remote(5), task.remote(50), actor.warm.remote(30)])
    runs.inc(tags={"kind": "driver"})
    expected = {
        'shoal_runs_total{kind="plain"}': 3.0,
        'shoal_runs_total{kind="call"}': 2.0,
        'shoal_runs_total{kind="driver"}': 1.0,
        "shoal_heat": 30.0,
        'shoal_took_s_bucket{le="1.0"}': 1.0,
        'shoal_took_s_bucket{le="10.0"}': 2.0,
        'shoal_took_s_bucket{le="+Inf"}': 3.0,
        "shoal_took_s_sum": 55.5,
        "shoal_took_s_count": 3.0,
    }
    eventually(shows(expected), "what was counted is served")
    with pytest.raises(shoal.exceptions.ActorDiedError):
        shoal.get(actor.leave.remote())
    eventually(shows({'shoal_runs_total{kind="last"}': 1.0}), "a process that ends reports first")
    eventually(lambda: "shoal_heat" not in scrape(), "a gauge goes with its process")


async def ask(port: int, head: bytes, tls: ssl.SSLContext | None = None) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    writer.write(head)
    answer = await reader.read()
    writer.close()
    return answer


async def test_from_elsewhere_only_with_the_token() -> None:
    server = MetricsServer("secret", None, lambda _: "up 1\n")
    await server.start("0.0.0.0", 0)
    try:
        for field in (b"", b"Authorization: Bearer wrong\r\n", b"Authorization: secret\r\n", b"X: Bearer secret\r\n"):
            answer = await ask(server.port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n" + field + b"\r\n")
            assert answer.startswith(b"HTTP/1.1 401 "), field
            assert b"up 1" not in answer
        shown = b"authorization: Bearer secret\r\n\r\n"
        answer = await ask(server.port, b"GET /metrics?x=1 HTTP/1.1\r\n" + shown)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\nup 1\n")
        assert (await ask(server.port, b"GET / HTTP/1.1\r\n" + shown)).startswith(b"HTTP/1.1 404 ")
        assert (await ask(server.port, b"POST /metrics HTTP/1.1\r\n" + shown)).startswith(b"HTTP/1.1 405 ")
        assert await ask(server.port, b"x" * 20_000) == b"", "a head without an end is hung up on"
    finally:
        await server.stop()


@pytest.mark.parametrize("secure", [False, True])
async def test_who_says_nothing_or_does_not_read_keeps_nobody_out(tmp_path: Path, secure: bool) -> None:
    tls = Authority(tmp_path / "authority").issue() if secure else None
    page = "up 1\n" * 1_000_000
    server = MetricsServer("secret", tls, lambda _: page)
    await server.start("127.0.0.1", 0)
    context = tls.context(server=False) if tls else None
    request = b"GET /metrics HTTP/1.1\r\n\r\n"
    try:
        silent = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(100)]
        unread = [await asyncio.open_connection("127.0.0.1", server.port, ssl=context) for _ in range(8)]
        for _, writer in unread:
            writer.write(request)
        answer = await ask(server.port, request, context)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(f"\r\n\r\n{page}".encode())
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await silent[0][0].readexactly(1)
    finally:
        await server.stop()
        for _, writer in [*silent, *unread]:
            writer.transport.abort()


def test_the_services_of_an_embedded_cluster_tell_what_they_declare(cluster: None) -> None:
    (node,) = shoal.nodes()
    request = urllib.request.Request(
        f"http://127.0.0.1:{node['MetricsExportPort']}/metrics", headers={"Accept": "application/openmetrics-text"}
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as reply:
        assert reply.headers["Content-Type"].startswith("application/openmetrics-text")
        text = reply.read().decode()
    assert text.endswith("# EOF\n")
    headings = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")]
    assert len(headings) == len(set(headings)), "no metric is told in two pieces"
    declared = {*gcs.FAMILIES, *scheduler.FAMILIES, *objectstore.FAMILIES, *raylet.FAMILIES}
    # There is one process, which leads; actors are told by class when there are some.
    told_elsewhere = {gcs.LEADS.name, gcs.EPOCH.name}
    assert {family.name for family in declared} - told_elsewhere <= set(headings)


async def test_a_service_of_its_own_tells_of_its_process_and_itself() -> None:
    class App:
        def samples(self) -> list[Sample]:
            return [sample(gcs.LEADS, 1)]

    served = ServedMetrics(GcsConfig(token="secret", metrics_port=0), App())
    await served.start()

    def read() -> str:
        with urllib.request.urlopen(f"http://{served.address}/metrics", timeout=PATIENCE_S) as reply:
            return reply.read().decode()

    try:
        text = await asyncio.to_thread(read)
    finally:
        await served.stop()
    assert "shoal_gcs_leads 1.0\n" in text
    assert "process_resident_memory_bytes " in text
