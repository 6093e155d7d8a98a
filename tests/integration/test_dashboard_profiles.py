"""Stacks, profiles and reasons of waits, of processes that run, by the dashboard."""

from __future__ import annotations

import http.client
import json
import os
import select
import subprocess
import sys
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from support.http import Answer, ask
from support.processes import PATIENCE_S, eventually

import shoal
from shoal.util import placement_group, remove_placement_group
from shoal_common import py_spy


class Dashboard:
    def __init__(self, context: Any) -> None:
        self.url = f"http://{context.dashboard_url}"
        self.token = Path(context["session_dir"], "auth_token").read_text().strip()

    def get(self, path: str, **query: Any) -> Answer:
        return ask(self.url + path, self.token, **query)

    def post(self, path: str, fields: dict[str, Any], **headers: str) -> Answer:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=PATIENCE_S)
        headers = {"Content-Type": "application/x-www-form-urlencoded", **headers}
        connection.request("POST", path, urlencode(fields), headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return Answer(answer.status, text)


@pytest.fixture(scope="module")
def dashboard() -> Iterator[Dashboard]:
    with shoal.init(num_cpus=2, include_dashboard=True, logging_level="ERROR", log_to_driver=False) as context:
        yield Dashboard(context)


@shoal.remote(num_cpus=0)
class Busy:
    def __init__(self) -> None:
        self._stop = threading.Event()
        threading.Thread(target=self.spin_for_the_profile).start()

    def spin_for_the_profile(self) -> None:
        kept = []
        while not self._stop.is_set():
            kept = [bytes(1000) for _ in range(1000)]
        del kept

    def where(self) -> dict[str, Any]:
        return {"pid": os.getpid(), "node_id": shoal.get_runtime_context().get_node_id()}

    def stop(self) -> None:
        self._stop.set()


@pytest.fixture(scope="module")
def busy(dashboard: Dashboard) -> Iterator[dict[str, Any]]:
    """Where its process is, which py-spy may look into."""
    may = subprocess.run(py_spy.dump(os.getpid(), native=False), capture_output=True, text=True)
    if may.returncode:
        pytest.skip(py_spy.failure(os.getpid(), may.stderr))
    actor = Busy.remote()
    yield shoal.get(actor.where.remote())
    shoal.get(actor.stop.remote())


def test_stacks_of_a_worker_and_of_the_driver(dashboard: Dashboard, busy: dict[str, Any]) -> None:
    answer = dashboard.get("/worker/traceback", **busy)
    assert answer.status == 200 and "spin_for_the_profile" in answer.text
    answer = dashboard.get("/worker/traceback", pid=os.getpid(), node_id=busy["node_id"])
    assert "test_stacks_of_a_worker_and_of_the_driver" in answer.text


def test_a_flame_graph_of_its_time(dashboard: Dashboard, busy: dict[str, Any]) -> None:
    answer = dashboard.get("/worker/cpu_profile", **busy, duration=1)
    assert answer.status == 200, answer.text
    assert answer.text.startswith("<svg") and "spin_for_the_profile" in answer.text
    text = dashboard.post(
        "/view/profile", {**busy, "kind": "cpu", "duration": "1"}, Authorization=f"Bearer {dashboard.token}"
    ).text
    assert "spin_for_the_profile" in text and "speedscope.json" in text


def test_bad_questions_have_answers_that_say_why(dashboard: Dashboard, busy: dict[str, Any]) -> None:
    node = {"node_id": busy["node_id"]}
    for path, query, status, said in (
        (
            "/worker/traceback",
            {"pid": os.getppid(), **node},
            404,
            "no driver or worker of this node",
        ),
        ("/worker/traceback", {"pid": "x", **node}, 400, "is no id of a process"),
        ("/worker/traceback", {"pid": 1}, 400, "node_id or ip is required"),
        ("/worker/traceback", {"pid": 1, "node_id": "00"}, 400, "no node that lives"),
        ("/worker/cpu_profile", {**busy, "duration": 100_000}, 400, "duration=100000"),
        ("/worker/cpu_profile", {**busy, "format": "png"}, 400, "format=png"),
        ("/task/traceback", {}, 400, "task_id is required"),
        ("/task/traceback", {"task_id": "00" * 20}, 404, "nothing is known"),
    ):
        answer = dashboard.get(path, **query)
        assert (answer.status, said in answer.text) == (status, True), (path, query, answer.text)
    assert dashboard.post("/view/profile", {**busy, "kind": "stacks"}).status == 401
    session = dashboard.post("/login", {"token": dashboard.token}, **{"Sec-Fetch-Site": "same-origin"})
    assert session.status == 303


def test_one_at_a_time_looks_into_a_process(dashboard: Dashboard, busy: dict[str, Any]) -> None:
    """Who hangs up makes room for the next one."""

    def begin() -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(urlsplit(dashboard.url).netloc, timeout=PATIENCE_S)
        headers = {"Authorization": f"Bearer {dashboard.token}"}
        connection.request("GET", "/worker/cpu_profile?" + urlencode({**busy, "duration": 300}), headers=headers)
        return connection

    first = begin()
    deadline = time.monotonic() + PATIENCE_S
    while (answer := dashboard.get("/worker/traceback", **busy)).status == 200 and time.monotonic() < deadline:
        if select.select([first.sock], [], [], 0)[0]:  # it was refused, as it came while the other one looked
            first.close()
            first = begin()
    assert answer.status == 429 and "right now" in answer.text
    first.close()
    while (answer := dashboard.get("/worker/traceback", **busy)).status == 429 and time.monotonic() < deadline:
        pass
    assert answer.status == 200, answer.text


def test_memory_is_told_by_memray_in_the_process(
    dashboard: Dashboard, busy: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """memray itself is large, and need not be here: the driver is given one that allocates as its real one says."""

    class Tracker:
        def __init__(self, path: Path, native_traces: bool, file_format: str) -> None: ...
        def __enter__(self) -> None: ...
        def __exit__(self, *error: object) -> None: ...

    class Record:
        size = 4096

        def stack_trace(self, most: int) -> list[tuple[str, str, int]]:
            return [("inner", "x.py", 2), ("outer", "x.py", 1)]

    class FileReader(Tracker):
        def __init__(self, path: Path) -> None: ...
        def __enter__(self) -> Any:
            return self

        def get_high_watermark_allocation_records(self, merge_threads: bool) -> list[Record]:
            return [Record()]

    where = {"pid": os.getpid(), "node_id": busy["node_id"], "duration": 1}
    monkeypatch.setitem(sys.modules, "memray", None)
    answer = dashboard.get("/memory_profile", **where)
    assert answer.status == 501 and "pip install memray" in answer.text
    memray = types.ModuleType("memray")
    vars(memray).update(
        Tracker=Tracker, FileReader=FileReader, FileFormat=types.SimpleNamespace(AGGREGATED_ALLOCATIONS="aggregated")
    )
    monkeypatch.setitem(sys.modules, "memray", memray)
    assert dashboard.get("/memory_profile", **where, format="raw").text == "outer (x.py:1);inner (x.py:2) 4096\n"
    document = json.loads(dashboard.get("/memory_profile", **where, format="speedscope").text)
    assert document["profiles"][0]["unit"] == "bytes"


@shoal.remote(num_cpus=2)
def needs_much() -> None: ...


@shoal.remote
def needs(value: Any) -> None: ...


@shoal.remote(num_cpus=0)
class Actor:
    def ready(self) -> None: ...

    def wait_for(self, refs: list[Any]) -> None:
        shoal.get(refs[0])


def test_pages_say_what_things_wait_for(dashboard: Dashboard) -> None:
    holder = Actor.options(num_cpus=2).remote()
    shoal.get(holder.ready.remote())
    ref = needs_much.remote()
    dependent = needs.remote(ref)
    actor, waiter = Actor.options(num_cpus=2).remote(), Actor.remote()
    call = waiter.wait_for.remote([ref])
    group = placement_group([{"CPU": 1}, {"CPU": 2}])

    def shown(page: str, *said: str) -> None:
        def text() -> str:
            return dashboard.get(f"/view/{page}").text

        eventually(lambda: all(each in text() for each in said), lambda: f"{page} says {said}:\n{text()}")

    task = dependent.task_id().hex()
    shown(f"tasks/{task}", "of needs is waiting for its arguments", "of needs_much is waiting for a worker", "2 CPU")
    shown(f"actors/{actor._actor_id.hex()}", "pending creation, no node has room for it yet")
    shown(f"actors/{waiter._actor_id.hex()}", "A get() or wait() has waited", "of needs_much is waiting for a worker")
    shown(f"placement_groups/{group.id.hex()}", "0 of 2 bundles have a node", "and none has so much free now")
    for each in (actor, holder):
        shoal.kill(each)
    shoal.get([dependent, call])
    remove_placement_group(group)
    eventually(lambda: f"{group.id.hex()} was removed" in dashboard.get("/view/events").text, "it is told")
    assert "What it waits for" not in dashboard.get(f"/view/placement_groups/{group.id.hex()}").text
