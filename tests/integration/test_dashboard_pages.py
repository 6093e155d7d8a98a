"""The dashboard's pages, as a program without JavaScript reads them."""

from __future__ import annotations

import gzip
import html
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
from support.http import Answer, ask
from support.processes import PATIENCE_S, eventually

import shoal
from shoal.job_submission import JobSubmissionClient
from shoal.util.placement_group import placement_group


class Pages:
    def __init__(self, context: Any) -> None:
        self.url = f"http://{context.dashboard_url}"
        self.token = Path(context["session_dir"], "auth_token").read_text().strip()

    def get(self, path: str) -> Answer:
        return ask(self.url + path, self.token)

    def opened(self, path: str) -> Answer:
        """Asked again while a part of the cluster does not answer in time, as the page (503) tells its reader to."""
        end = time.monotonic() + PATIENCE_S
        while (answer := self.get(path)).status == 503 and time.monotonic() < end:
            time.sleep(0.2)
        return answer


@pytest.fixture(scope="module")
def pages() -> Iterator[Pages]:
    with shoal.init(num_cpus=2, include_dashboard=True, logging_level="ERROR", log_to_driver=False) as context:
        yield Pages(context)


def test_every_page_opens_and_leads_only_to_pages_that_open(pages: Pages) -> None:
    @shoal.remote
    class Named:
        def ready(self) -> None:
            return

    actor = Named.options(name="<b>bold</b>").remote()
    group = placement_group([{"CPU": 1}])
    shoal.get([actor.ready.remote(), group.ready()])
    kept = shoal.put(bytes(1_000_000))
    seen: set[str] = set()
    waiting = ["/"]
    while waiting:
        path = waiting.pop()
        seen.add(path)
        answer = pages.opened(path)
        assert answer.status == 200, (path, answer.text)
        assert "<b>bold" not in answer.text, "what users name is text"
        for link in re.findall(r'(?:href|src|action)="([^"]+)"', answer.text):
            assert not link.startswith(("/", "http")), f"{path} has an address that is not relative: {link}"
            target = urlsplit(urljoin(pages.url + path, html.unescape(link)))
            where = target.path + (f"?{target.query}" if target.query else "")
            if where.startswith("/api/"):
                continue  # the whole of a file, which is no page
            if where not in seen and not where.endswith(("/logout", "/stop")) and len(seen) < 100:
                waiting.append(where)
                seen.add(where)
    kinds = {path.split("/")[2] for path in seen if path.startswith("/view/")}
    assert {"jobs", "actors", "nodes", "workers", "objects", "placement_groups"} <= kinds
    assert any(path.startswith("/view/actors/") for path in seen)
    assert len(shoal.get(kept)) == 1_000_000


def test_lists_are_filtered_and_say_how_many_there_are(pages: Pages) -> None:
    @shoal.remote
    class Counted:
        def ready(self) -> None:
            return

    actors = [Counted.remote() for _ in range(3)]
    shoal.get([actor.ready.remote() for actor in actors])
    text = pages.get("/view/actors?class_name=Counted&limit=2").text
    assert re.search(r"3 of \d", text), text
    following = re.search(r'href="([^"]+)" rel="next">Next page', text)
    assert following, text
    text = pages.get("/view/" + html.unescape(following[1]).rpartition("view/")[2]).text
    assert "3 of" in text and "First page" in text and "Next page" not in text
    assert len(re.findall("<tr data-key", text)) == 1
    assert "Named" not in text
    assert "0 of" in pages.get("/view/actors?class_name=nobody").text
    assert pages.get("/view/actors/00").status == 404
    assert pages.get("/view/nonsense").status == 404
    for wrong, said in (
        ("actors?pid=x", "the column has numbers"),
        ("tasks?state=FOO", "There is no state"),
        ("tasks?cursor=garbage", "is not a cursor"),
    ):
        answer = pages.get(f"/view/{wrong}")
        assert answer.status == 400 and 'role="alert"' in answer.text and said in answer.text


def test_what_happens_and_what_is_printed_is_read(pages: Pages) -> None:
    @shoal.remote
    class Speaker:
        def speak(self) -> None:
            print("<i>spoken</i>", flush=True)

    # It listens from then on.
    eventually(lambda: "has joined" in pages.get("/view/events").text, "the node is told")
    speaker = Speaker.remote()
    call = speaker.speak.remote()
    shoal.get(call)
    eventually(lambda: "Actor Speaker is up" in pages.get("/view/events").text, "it is told")
    assert "Actor Speaker" not in pages.get("/view/events?severity=ERROR").text
    for wrong, said in (
        ("severity=zz", "none of INFO, WARNING, ERROR"),
        ("limit=abc", "no"),
        ("limit=0", "at least one row"),
    ):
        answer = pages.get(f"/view/events?{wrong}")
        assert (answer.status, said in answer.text, "invalid literal" in answer.text) == (400, True, False)
    for wrong in ("node_id=zz&pid=1", f"node_id={shoal.get_runtime_context().get_node_id()}&pid=abc"):
        assert pages.get(f"/view/profile?{wrong}").status == 400

    node = f"/view/logs/{shoal.get_runtime_context().get_node_id()}"
    assert f'href="..{node}"' in pages.get("/view/logs").text
    files = re.findall(r">(worker-[0-9a-f]+\.out)<", pages.get(node).text)
    assert files
    eventually(lambda: any("&lt;i&gt;spoken" in pages.get(f"{node}/{name}").text for name in files), "it is shown")
    text = pages.get("/view/logs/search?word=SPOKEN&files=worker-*.out").text
    assert "&lt;i&gt;<mark>spoken</mark>&lt;/i&gt;" in text and "Not looked at" not in text, text
    assert any(f'href="../..{node}/{name}"' in text for name in files), "it leads there"
    assert "0 lines in 0 files" in pages.get("/view/logs/search?word=never-spoken&node_id=00").text
    assert pages.get(f"/view/logs/search?word={'x' * 201}").status == 400
    for wrong in ("/view/logs/00", f"{node}/no-file", f"{node}/..%2f..%2fetc%2fpasswd"):
        assert pages.get(wrong).status == 404
    task_id = call.task_id().hex()
    link = r'href="\.\./\.\.(/api/v0/logs/file\?[^"]+)">What it has printed<'
    for page in (f"/view/actors/{speaker._actor_id.hex()}", f"/view/tasks/{task_id}"):
        found = eventually(lambda page=page: re.search(link, pages.get(page).text), "its page links to what it printed")
        assert "<i>spoken" in pages.get(html.unescape(found[1])).text
    shoal.kill(speaker)


def test_a_submitted_job_has_its_output_and_a_button_that_stops_it(pages: Pages, monkeypatch: Any) -> None:
    monkeypatch.setenv("SHOAL_AUTH_TOKEN", pages.token)
    client = JobSubmissionClient(pages.url)
    job = client.submit_job(entrypoint="echo '<i>shown</i>'; sleep 1000")
    text = eventually(lambda: (t := pages.get(f"/view/jobs/{job}").text) and "shown" in t and t, "its output")
    assert "&lt;i&gt;shown" in text
    assert "Stop this job" in text
    client.stop_job(job)
    eventually(lambda: client.get_job_status(job).is_terminal(), "it ends")
    assert "Stop this job" not in pages.get(f"/view/jobs/{job}").text


def test_a_page_that_is_watched_comes_again_when_it_has_changed(pages: Pages) -> None:
    @shoal.remote
    class Watched:
        def ready(self) -> None:
            return

    request = urllib.request.Request(
        f"{pages.url}/view/actors?class_name=Watched",
        headers={"Authorization": f"Bearer {pages.token}", "Accept": "text/event-stream"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")

        def shown() -> str:
            """The next event."""
            lines = list(iter(lambda: stream.readline().decode(), "\n"))
            return "".join(line.removeprefix("data: ") for line in lines if line.startswith("data: "))

        first = shown()
        assert "0 of" in first and "<h1>Actors</h1>" in first
        assert "<nav" not in first, "what is around it stays as it is"
        actor = Watched.remote()
        shoal.get(actor.ready.remote())
        eventually(lambda: "1 of" in shown(), "the actor is listed")
    for wrong, status in (("actors/00", 404), ("actors?pid=x", 400)):
        request.full_url = f"{pages.url}/view/{wrong}"
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=PATIENCE_S)
        assert refused.value.code == status
        refused.value.close()


def test_the_timeline_has_cells_and_leads_to_tasks(pages: Pages) -> None:
    @shoal.remote
    def drawn() -> None:
        return

    shoal.get([drawn.remote() for _ in range(3)])
    job_id = shoal.get_runtime_context().get_job_id()
    text = eventually(lambda: "drawn" in (t := pages.get(f"/view/timeline?job_id={job_id}").text) and t, "it is shown")
    assert 'class="swatch kind-0"' in text and "<table" in text
    assert f'timeline?job_id={job_id}"' in pages.get(f"/view/jobs/{job_id}").text
    request = urllib.request.Request(
        f"{pages.url}/view/timeline/sheet?job_id={job_id}&columns=64",
        headers={"Authorization": f"Bearer {pages.token}"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        data = gzip.decompress(answer.read())
    length = int.from_bytes(data[:4], "little")
    head = json.loads(data[4 : 4 + length])
    assert len(data) == 4 + length + 2 * head["columns"] * len(head["lanes"]) and head["columns"] <= 64
    assert "drawn" in {head["names"][mark[4]].rpartition(".")[2] for mark in head["marks"]}
    mark = head["marks"][0]
    place = f"job_id={job_id}&worker_id={head['lanes'][mark[0]]['worker_id']}&at_ms={mark[2]}"
    assert "<dt>state</dt>" in pages.get(f"/view/timeline/at?{place}").text
    assert "<h1>Timeline</h1>" in pages.get(f"/view/timeline/at?job_id={job_id}&worker_id=00&at_ms=1").text
    assert pages.get("/view/timeline?job_id=x").status == 404
    for wrong in ("job_id=x", "start_ms=-1", "end_ms=1e3", "columns=many"):
        assert pages.get(f"/view/timeline/sheet?{wrong}").status == 400, wrong


def test_charts_have_last_values_and_the_hour(pages: Pages) -> None:
    node_id = shoal.get_runtime_context().get_node_id()
    eventually(lambda: node_id in pages.get("/view/charts").text, "the node has told how busy it is")
    eventually(lambda: pages.get(f"/view/charts/data?node_id={node_id}").json["newest"] > 0, "a step is complete")
    whole, node = (pages.get(f"/view/charts/data{query}").json for query in ("", f"?node_id={node_id}"))
    assert len(whole["series"]["memory_used"]) == whole["steps"] == 720
    assert whole["series"]["tasks_running"][-1] is not None
    assert set(node["series"]) < set(whole["series"])
    assert (
        pages.get(f"/view/charts/data?after={whole['newest'] + 1000}").json["series"].keys() == whole["series"].keys()
    )
    text = pages.get(f"/view/nodes/{node_id}").text
    assert "Memory: used" in text and "static/charts.js" in text
    assert pages.get("/view/charts/data?node_id=zz").status == 400


def test_the_graph_of_a_job_shows_who_calls_whom(pages: Pages) -> None:
    @shoal.remote
    def leaf() -> None:
        return

    @shoal.remote
    def root() -> None:
        shoal.get([leaf.remote() for _ in range(3)])

    @shoal.remote(max_retries=0)
    def failing() -> None:
        raise ValueError("in vain")

    shoal.get(root.remote())
    job_id = shoal.get_runtime_context().get_job_id()

    def drawn() -> str:
        text = pages.get(f"/view/graph?job_id={job_id}").text
        return text if re.search(r"root calls [^:]*leaf: 3<", text) else ""

    text = eventually(drawn, "the calls are drawn")
    assert "<svg" in text and "driver calls" in text and "style=" not in text
    assert pages.get("/view/graph?job_id=x").status == 404
    text = pages.get(f"/view/jobs/{job_id}").text
    assert re.search(r'class="depth-1"><a href="[^"]*leaf', text), "the tree of the job's tasks"
    with pytest.raises(ValueError, match="in vain"):
        shoal.get(failing.remote())
    eventually(lambda: "in vain" in pages.get(f"/view/errors?job_id={job_id}").text, "it is told")
    assert pages.get("/view/errors?job_id=x").status == 404


def test_the_configuration_says_what_services_run_with(pages: Pages) -> None:
    text = pages.opened("/view/configuration").text
    for service in ("gcs", "scheduler", "objectstore", "dashboard"):
        assert f"<h2>{service} at" in text
    assert "the process that hosts it" in text and "It does not say" not in text
    assert pages.token not in text
    node = re.search(r"nodes/([0-9a-f]+)", pages.opened("/view/nodes").text)
    assert node
    assert "<h2>raylet at" in pages.opened(f"/view/nodes/{node[1]}").text
