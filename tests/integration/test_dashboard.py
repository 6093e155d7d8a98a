"""The dashboard of an embedded cluster: where it is, who gets in, what Ray's state interface tells of the cluster."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.http import Answer, ask
from support.processes import PATIENCE_S, all_gone, command, descendants, eventually

import shoal
from shoal import cli
from shoal._session.address import token_for
from shoal.util import state
from shoal.util.placement_group import placement_group
from shoal.util.state import get_log, list_logs
from shoal.util.state.common import ActorState
from shoal.util.state.exception import RayStateApiException, ServerUnavailable


class Dashboard:
    """Asked with the cluster's token."""

    def __init__(self, context: Any) -> None:
        self.context = context
        self.url = f"http://{context.dashboard_url}"
        self.token = Path(context["session_dir"], "auth_token").read_text().strip()

    def get(self, path: str, **query: Any) -> Answer:
        return ask(self.url + path, self.token, **query)

    def list(self, resource: str, *filters: tuple[str, str, str], **query: Any) -> dict[str, Any]:
        keys, predicates, values = zip(*filters, strict=True) if filters else ((), (), ())
        answer = self.get(
            f"/api/v0/{resource}", filter_keys=keys, filter_predicates=predicates, filter_values=values, **query
        )
        assert answer.status == 200 and answer.json["result"], answer.text
        found: dict[str, Any] = answer.json["data"]["result"]
        return found


@pytest.fixture(scope="module")
def dashboard() -> Iterator[Dashboard]:
    context = shoal.init(num_cpus=2, include_dashboard=True, logging_level="ERROR", log_to_driver=False)
    with context:
        yield Dashboard(context)


@shoal.remote
def own_pid() -> int:
    return os.getpid()


@shoal.remote
class Counter:
    def pid(self) -> int:
        return os.getpid()

    def fail(self) -> None:
        os._exit(1)


def test_where_it_is(dashboard: Dashboard) -> None:
    host, _, port = dashboard.context.dashboard_url.partition(":")
    assert host == "127.0.0.1" and int(port) >= 8265
    assert dashboard.context["webui_url"] == dashboard.context.dashboard_url
    version = dashboard.get("/api/version").json
    assert (version["version"], version["ray_version"]) == ("4", "2.60.0")
    assert version["session_name"] == Path(dashboard.context["session_dir"]).name
    assert dashboard.get("/api/gcs_healthz").text == "success"


def test_who_gets_in(dashboard: Dashboard) -> None:
    assert ask(f"{dashboard.url}/api/v0/nodes").status == 401
    assert ask(f"{dashboard.url}/api/v0/nodes", "wrong").status == 403
    assert dashboard.get(f"/api/v0/nodes?token={dashboard.token}").status == 400
    assert Path(dashboard.context["session_dir"], "auth_token").stat().st_mode & 0o077 == 0


def test_nodes(dashboard: Dashboard) -> None:
    found = dashboard.list("nodes", detail=True)
    [node] = found["result"]
    assert (found["total"], node["node_id"], node["state"]) == (1, dashboard.context["node_id"], "ALIVE")
    assert (node["resources_total"]["CPU"], node["is_head_node"]) == (2.0, True)
    assert dashboard.list("nodes", ("state", "=", "DEAD"))["result"] == []


def test_actors(dashboard: Dashboard) -> None:
    counters = [Counter.options(num_cpus=0, name=f"c{number}").remote() for number in range(3)]
    pids = shoal.get([counter.pid.remote() for counter in counters])
    found = dashboard.list("actors", ("class_name", "=", "Counter"), ("state", "=", "ALIVE"), limit=2)
    assert (len(found["result"]), found["num_filtered"]) == (2, 3)
    [row] = dashboard.list("actors", ("name", "=", "c1"), detail=True)["result"]
    assert (row["pid"], row["actor_id"], row["num_restarts"]) == (pids[1], counters[1]._actor_id.hex(), 0)
    with pytest.raises(shoal.exceptions.ActorDiedError):
        shoal.get(counters[0].fail.remote())
    [dead] = dashboard.list("actors", ("name", "=", "c0"), detail=True)["result"]
    assert (dead["state"], dead["death_cause"]["exit_type"]) == ("DEAD", "SYSTEM_ERROR")
    summary = dashboard.get("/api/v0/actors/summarize").json["data"]["result"]["result"]
    counts = summary["node_id_to_summary"]["cluster"]["summary"]["Counter"]["state_counts"]
    assert counts == {"ALIVE": 2, "DEAD": 1}
    for counter in counters:
        shoal.kill(counter)


def test_jobs_and_workers(dashboard: Dashboard) -> None:
    [job] = dashboard.list("jobs", detail=True)["result"]
    assert (job["type"], job["status"], job["driver_info"]["pid"]) == ("DRIVER", "RUNNING", str(os.getpid()))
    [driver] = dashboard.list("workers", ("worker_type", "=", "DRIVER"))["result"]
    assert driver["pid"] == os.getpid()
    pid = shoal.get(own_pid.remote())
    assert dashboard.list("workers", ("pid", "=", str(pid)), ("is_alive", "=", "true"))["num_filtered"] == 1


def test_objects(dashboard: Dashboard) -> None:
    ref = shoal.put(np.zeros(2**20, dtype=np.uint8))
    [row] = dashboard.list("objects", ("object_id", "=", ref.hex()))["result"]
    assert row["object_size"] >= 2**20
    assert (row["type"], row["pid"], row["task_status"]) == ("DRIVER", os.getpid(), "FINISHED")
    summary = dashboard.get("/api/v0/objects/summarize").json["data"]["result"]["result"]
    assert summary["node_id_to_summary"]["cluster"]["total_objects"] >= 1


def test_placement_groups(dashboard: Dashboard) -> None:
    group = placement_group([{"CPU": 1}], name="pair", strategy="STRICT_PACK")
    try:
        # Its bundle is usable a moment before the GCS has heard so.
        shoal.get(group.ready())
        wanted = ("name", "=", "pair"), ("state", "=", "CREATED")
        [row] = eventually(lambda: dashboard.list("placement_groups", *wanted, detail=True)["result"], "it is created")
        assert row["placement_group_id"] == group.id.hex()
        assert row["bundles"][0]["unit_resources"] == {"CPU": 1.0}
    finally:
        shoal.util.remove_placement_group(group)


def test_runtime_environments(dashboard: Dashboard) -> None:
    shoal.get(own_pid.options(runtime_env={"env_vars": {"COLOUR": "red"}}).remote())
    [row] = dashboard.list("runtime_envs", ("success", "=", "true"), detail=True)["result"]
    assert row["runtime_env"]["env_vars"] == {"COLOUR": "red"}


def test_the_python_interface(dashboard: Dashboard) -> None:
    counter = Counter.options(num_cpus=0.5, name="asked").remote()
    shoal.get(counter.pid.remote())
    [row] = state.list_actors(filters=[("name", "=", "asked")], limit=1, detail=True)
    assert isinstance(row, ActorState)
    assert (row.state, row["class_name"], row.get("is_detached")) == ("ALIVE", "Counter", False)
    assert (row["required_resources"], row["placement_group_id"]) == ({"CPU": 0.5}, None)
    assert state.get_actor(row.actor_id) == row
    assert state.get_actor("00" * 16) is None
    assert state.summarize_actors()["cluster"]["summary"]["Counter"]["state_counts"]["ALIVE"] == 1
    assert [node.state for node in state.list_nodes(address=dashboard.context["gcs_address"])] == ["ALIVE"]
    ref = shoal.put(np.ones(2**20, dtype=np.uint8))
    [found] = state.get_objects(ref.hex())
    assert found.object_size >= 2**20
    with pytest.raises(RayStateApiException, match="column colour is not supported"):
        state.list_actors(filters=[("colour", "=", "red")])
    with pytest.raises(ValueError, match="predicate <"):
        state.list_actors(filters=[("pid", "<", 1)])
    shoal.kill(counter)

    def told() -> list[str]:
        return [event.message for event in state.list_cluster_events()]

    eventually(lambda: any("has joined" in text for text in told()), "the node is there")
    eventually(lambda: any("Actor Counter" in text and "is dead" in text for text in told()), "the actor's end")
    eventually(lambda: any("A job has begun" in text for text in told()), "what came before the dashboard listened")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"limit": "many"}, "limit=many"),
        ({"limit": 10**9}, "limit 1000000000"),
        ({"filter_keys": "state"}, "filter_keys"),
        ({"filter_keys": "colour", "filter_predicates": "=", "filter_values": "red"}, "colour"),
        ({"filter_keys": "state", "filter_predicates": ">", "filter_values": "a"}, "predicate >"),
    ],
)
def test_questions_that_make_no_sense(dashboard: Dashboard, query: dict[str, Any], said: str) -> None:
    answer = dashboard.get("/api/v0/actors", **query)
    assert answer.status == 400
    assert answer.json["result"] is False and said in answer.json["msg"]


def test_what_rays_page_asks_besides(dashboard: Dashboard) -> None:
    assert "/2 CPU" in dashboard.get("/api/cluster_status", format=1).json["data"]["clusterStatus"]
    assert dashboard.get("/api/v0/cluster_metadata").json["data"]["rayVersion"] == "2.60.0"
    assert dashboard.get("/api/component_activities").json["driver"]["is_active"] == "ACTIVE"
    [node] = dashboard.get("/nodes", view="summary").json["data"]["summary"]
    assert node["raylet"]["nodeId"] == dashboard.context["node_id"]
    assert dashboard.get("/nodes", view="nonsense").status == 400
    assert "actors" in dashboard.get("/logical/actors").json["data"]


def test_what_tasks_and_actors_print_is_read_by_their_ids(dashboard: Dashboard) -> None:
    @shoal.remote
    def say(text: str) -> str:
        print(text)
        print("\x1b[31mred\x1b[0m", file=sys.stderr)
        return shoal.get_runtime_context().get_task_id()

    one, _ = shoal.get([say.remote("one"), say.remote("two")])

    def lines(media_type: str = "file", **query: Any) -> list[str]:
        return dashboard.get(f"/api/v0/logs/{media_type}", **query).text.splitlines()

    eventually(lambda: lines(task_id=one) == ["one"], "the task's line")
    eventually(lambda: lines(task_id=one, suffix="err", filter_ansi_code=True) == ["red"], "its standard error")
    [told] = map(json.loads, lines(task_id=one, format="json"))
    assert (told["line"], told["task_id"], told["name"]) == ("one", one, "say")
    node = dashboard.context["node_id"]
    files = dashboard.get("/api/v0/logs", node_id=node).json["data"]["result"]
    assert f"worker-{told['worker_id']}.out" in files["worker_out"]
    assert lines(node_id=node, filename=f"worker-{told['worker_id']}.out", lines=-1)

    def read(**query: Any) -> int:
        return dashboard.get("/api/v0/logs/file", **query).status

    assert read(task_id="00" * 20) == 404
    assert read() == read(filename="head.log") == read(node_id="00", task_id=one) == read(task_id=one, lines="x") == 400
    assert read(node_id=node, filename="../auth_token") == read(node_id=node, filename="/etc/passwd") == 400
    assert dashboard.get("/api/v0/logs/other", task_id=one).status == 400
    assert dashboard.get("/api/v0/logs").status == 400


def test_what_is_printed_is_followed_until_its_worker_ends(dashboard: Dashboard) -> None:
    @shoal.remote(num_cpus=0)
    class Speaker:
        def say(self, text: str) -> None:
            print(text)

    speaker = Speaker.remote()
    shoal.get(speaker.say.remote("first"))
    url = f"{dashboard.url}/api/v0/logs/stream?actor_id={speaker._actor_id.hex()}"
    eventually(lambda: ask(url.replace("stream", "file"), dashboard.token).text == "first\n", "the first line")
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {dashboard.token}"})
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        assert answer.readline() == b"first\n"
        shoal.get(speaker.say.remote("second"))
        assert answer.readline() == b"second\n"
        shoal.kill(speaker)
        assert answer.read() == b""


def test_the_command_shows_the_rows_of_the_pages(
    dashboard: Dashboard, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SHOAL_ADDRESS", shoal.get_runtime_context().gcs_address)
    counter = Counter.options(name="shown").remote()
    shoal.get(counter.pid.remote())

    def run(*arguments: str) -> str:
        capsys.readouterr()
        assert cli.main(list(arguments)) == 0
        return capsys.readouterr().out

    chosen = ("-f", "name=shown", "--filter", "state!=DEAD")
    heading, line = run("list", "actors", *chosen).splitlines()
    assert heading.split()[:3] == ["ACTOR_ID", "CLASS_NAME", "STATE"]
    actor_id = counter._actor_id.hex()
    assert line.split()[:3] == [actor_id, "Counter", "ALIVE"]
    assert [row["actor_id"] for row in json.loads(run("list", "actors", *chosen, "--format=json"))] == [actor_id]
    assert run("list", "actors", *chosen, "--format=csv").splitlines()[1].startswith(f"{actor_id},Counter,ALIVE,")
    assert run("list", "actors", *chosen, "--detail").startswith(f'- actor_id: "{actor_id}"\n  class_name: "Counter"\n')
    assert f'actor_id: "{actor_id}"' in run("get", "actors", actor_id)
    assert "ALIVE" in run("summary", "actors")
    assert run("list", "actors", "-f", "name=nobody") == "There are no actors with name=nobody.\n"
    assert "NODE_ID" in run("list", "nodes") and "LABELS" in run("list", "nodes")
    kept = shoal.put(np.zeros(3_000_000))
    assert kept.hex() in run("memory") and " MiB at 127.0.0.1" in run("memory")
    trace = tmp_path / "trace.json"
    assert str(trace) in run("timeline", str(trace))
    assert isinstance(json.loads(trace.read_text()), list)
    address = f"--address={shoal.get_runtime_context().gcs_address}"
    assert "1 node alive" in run("status", address) and "CPU" in run("top", "--once", address)
    waiting = Counter.options(num_cpus=64, name="large").remote()
    eventually(lambda: f"Counter {waiting._actor_id.hex()} is pending creation" in run("status", address), "it waits")
    shoal.kill(waiting)
    assert cli.main(["get", "actors", "00" * 16]) == 1
    assert "there is no such actor" in capsys.readouterr().err
    for wrong in (["list", "actors", "-f", "nonsense"], ["list", "things"], ["get", "runtime-envs", "x"]):
        assert cli.main(wrong) == 2
    assert cli.main(["list", "actors", "-f", "no_column=1"]) == 1
    assert "no_column" in capsys.readouterr().err
    shoal.kill(counter)


def test_logs_are_read_by_python(dashboard: Dashboard) -> None:
    @shoal.remote
    def say(text: str) -> str:
        print(text)
        return shoal.get_runtime_context().get_task_id()

    task_id = shoal.get(say.remote("told"))

    def told(**options: Any) -> str:
        try:
            return "".join(get_log(task_id=task_id, **options))
        except RayStateApiException:
            return ""  # the raylet has not read it yet

    eventually(lambda: told() == "told\n", "the task's line")
    assert [*get_log(task_id=task_id, encoding=None)] == [b"told\n"]
    assert list_logs(node_id=dashboard.context["node_id"], glob_filter="worker-*.out")["worker_out"]
    with pytest.raises(RayStateApiException, match="no node that lives has anything"):
        list(get_log(task_id="00" * 20))
    with pytest.raises(RayStateApiException, match="no node that lives is"):
        list_logs(node_id="00" * 16)
    with pytest.raises(ValueError):
        list_logs()


def test_prometheus_finds_the_nodes_and_reads_the_dashboard(dashboard: Dashboard) -> None:
    [found] = dashboard.get("/api/prometheus/sd").json
    node_id = dashboard.context["node_id"]
    [port] = [node["MetricsExportPort"] for node in shoal.nodes() if node["NodeID"] == node_id]
    assert found["targets"] == [f"127.0.0.1:{port}"]
    assert found["labels"]["node"] == node_id
    assert "ray_node_cpu_count" in ask(f"http://{found['targets'][0]}/metrics").text
    assert "process_resident_memory_bytes " in dashboard.get("/metrics").text
    assert ask(f"{dashboard.url}/metrics").status == 401


def test_a_port_that_is_taken_is_said_to_be(dashboard: Dashboard) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        program = f"import shoal; shoal.init(address='local', num_cpus=1, dashboard_port={port})"
        ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 1
    assert "The dashboard did not start: " in ended.stderr
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use\n" in ended.stderr


def test_it_ends_with_a_driver_that_is_killed(dashboard: Dashboard) -> None:
    program = "import shoal, sys; print(shoal.init(address='local', num_cpus=1, include_dashboard=True).dashboard_url, flush=True); sys.stdin.read()"  # noqa: E501
    driver = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    url = driver.stdout.readline().strip()
    assert url and url != dashboard.context.dashboard_url
    below = descendants(driver.pid)
    assert any("shoal_dashboard" in command(pid) for pid in below)
    driver.kill()
    driver.communicate()
    all_gone(below)


def test_the_command_runs_one_for_a_cluster_without(dashboard: Dashboard) -> None:
    program = (
        "import shoal, sys; print(shoal.init(address='local', num_cpus=1)['gcs_address'], flush=True); sys.stdin.read()"
    )
    driver = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    gcs = driver.stdout.readline().strip()
    with pytest.raises(ServerUnavailable, match="`shoal dashboard` starts one"):
        state.list_nodes(address=gcs)
    command = [sys.executable, "-m", "shoal.cli", "dashboard", f"--address={gcs}"]
    runs = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert runs.stdout is not None
    first = runs.stdout.readline()
    assert first.startswith("The dashboard is at http://127.0.0.1:"), first
    assert [node.state for node in state.list_nodes(address=gcs)] == ["ALIVE"]
    again, login = subprocess.check_output(command, text=True).splitlines()
    assert again == first.strip()
    assert token_for(gcs) == Path(login.partition("that in ")[2].rstrip(".")).read_text().strip()
    # One that is killed stays announced for a while, and is none.
    for process in descendants(runs.pid):
        os.kill(process, signal.SIGKILL)
    runs.communicate()
    runs = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert runs.stdout is not None
    assert runs.stdout.readline().startswith("The dashboard is at http://127.0.0.1:")
    assert [node.state for node in state.list_nodes(address=gcs)] == ["ALIVE"]
    assert "It runs until" in "".join(runs.stdout.readline() for _ in range(2))
    runs.terminate()
    runs.communicate()
    assert runs.returncode == 0
    driver.communicate("")


def test_without_its_cluster_it_says_so(dashboard: Dashboard, tmp_path: Path) -> None:
    """Started before there is one."""
    token = tmp_path / "token"
    token.write_text("t" * 16)
    log = tmp_path / "log"
    with socket.create_server(("127.0.0.1", 0)) as nobody, open(log, "w") as output:
        gcs = nobody.getsockname()[1]
        nobody.close()
        process = subprocess.Popen(
            [sys.executable, "-m", "shoal_dashboard", "--port=0", f"--gcs-address=127.0.0.1:{gcs}"],
            env={**os.environ, "SHOAL_AUTH_TOKEN_PATH": str(token)},
            stderr=output,
        )
    try:
        eventually(lambda: "cluster_away" in log.read_text(), "it says that it waits")
        line = next(line for line in log.read_text().splitlines() if "service_started" in line)
        address = line.partition('"address": "')[2].partition('"')[0]
        answer = ask(f"http://{address}/api/v0/nodes", "t" * 16)
        assert answer.status == 503 and "The cluster does not answer" in answer.json["msg"]
    finally:
        process.terminate()
        assert process.wait() == 0


@shoal.remote(max_retries=0)
def child(fails: bool) -> int:
    if fails:
        raise ValueError("as it was told")
    return 1


@shoal.remote
def parent() -> int:
    return int(shoal.get(child.remote(False)))


def test_tasks_are_listed_with_what_became_of_them(dashboard: Dashboard) -> None:
    ref = child.remote(True)
    with pytest.raises(ValueError, match="as it was told"):
        shoal.get(ref)
    task_id = ref.task_id().hex()
    eventually(lambda: dashboard.list("tasks", ("task_id", "=", task_id))["result"], "the failure is recorded")
    (row,) = dashboard.list("tasks", ("task_id", "=", task_id), detail=True)["result"]
    assert (row["state"], row["error_type"], row["func_or_class_name"]) == (
        "FAILED",
        "TASK_EXECUTION_EXCEPTION",
        "child",
    )
    assert "as it was told" in row["error_message"]


def test_what_was_got_is_in_the_answer_to_the_next_question(dashboard: Dashboard) -> None:
    for round_ in range(2):
        refs = [child.options(name=f"just {round_}", num_cpus=2).remote(False) for _ in range(7)]
        shoal.get(refs)
        trace = shoal.timeline() or []
        assert len([each for each in trace if each["name"] == f"just {round_}"]) == 7
        shoal.get([child.options(name=f"more {round_}").remote(False) for _ in range(7)])
        rows = state.list_tasks(filters=[("name", "=", f"more {round_}")], detail=True)
        assert [row.state for row in rows] == ["FINISHED"] * 7
        assert {row.node_id for row in rows} == {dashboard.context["node_id"]} and all(row.worker_pid for row in rows)
        (first, *_) = state.list_tasks(filters=[("task_id", "=", refs[0].task_id().hex())], detail=True)
        assert (first.required_resources, rows[0].required_resources) == ({"CPU": 2.0}, {"CPU": 1.0})
    finished = state.summarize_tasks()["cluster"]["summary"]["child"]["state_counts"]["FINISHED"]
    assert finished >= 28
    assert dashboard.get("/api/v0/tasks", after="yesterday").status == 400


def test_a_timeline_has_what_ran_and_who_submitted_it(dashboard: Dashboard, tmp_path: Path) -> None:
    shoal.get(parent.remote())

    def arrows() -> list[dict[str, Any]]:
        return [each for each in shoal.timeline() or () if each["ph"] == "s"]

    eventually(arrows, "both are recorded")
    file = tmp_path / "trace.json"
    assert shoal.timeline(str(file)) is None
    trace = json.loads(file.read_text())
    outer = next(each for each in trace if each["ph"] == "X" and each["name"] == "parent")
    assert outer["args"]["state"] == "FINISHED"
    begins = [each["ts"] for each in trace if each["ph"] == "s" and each["tid"] == outer["tid"]]
    assert any(outer["ts"] <= at <= outer["ts"] + outer["dur"] for at in begins)
    answer = dashboard.get("/api/v0/tasks/timeline", start_ms="yesterday")
    assert answer.status == 400 and "milliseconds" in answer.text
