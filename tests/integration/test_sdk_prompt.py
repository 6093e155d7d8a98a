"""What a prompt (``repr``) and a notebook (``_repr_html_``) show of Shoal's objects."""

from __future__ import annotations

import html
import queue
import re
import sys
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.processes import PATIENCE_S

import shoal
from shoal._session import panel
from shoal.util import placement_group, remove_placement_group
from tests.support.actors import Gate


@shoal.remote(num_cpus=0, max_retries=1)
def let_through(gate: Any, *, times: int = 1) -> int:
    shoal.get(gate.pass_through.remote())
    return times


@shoal.remote(num_cpus=0)
class Counter:
    def __init__(self, start: int = 0) -> None:
        self.value = start

    def add(self, gate: Any) -> None:
        shoal.get(gate.pass_through.remote())

    def fail(self) -> None:
        raise ValueError("no more\nthan this")


def rows(thing: Any) -> dict[str, str]:
    """Of the table that a notebook shows, whose caption is what a prompt shows."""
    shown = html.unescape(thing._repr_html_())
    assert f"<caption>{thing!r}</caption>" in shown
    return dict(re.findall(r"<tr><th[^>]*>(.*?)</th><td[^>]*>(.*?)</td></tr>", shown))


@pytest.mark.usefixtures("cluster")
def test_functions_and_classes() -> None:
    assert repr(let_through) == "RemoteFunction(let_through)"
    shown = rows(let_through.options(name="other"))
    assert "times" in shown.pop("parameters")
    assert shown == {"num_cpus": "0", "max_retries": "1", "name": "other"}
    shown = rows(Counter)
    assert "start" in shown.pop("parameters")
    assert shown == {"methods": "add, fail", "num_cpus": "0"}

    @shoal.remote(num_cpus=0)
    def of_another_process(function: Any, cls: Any) -> list[str]:
        return [rows(each)["parameters"] for each in (function, cls)]

    assert shoal.get(of_another_process.remote(let_through, Counter)) == ["(gate, *, times=...)", "(start=...)"]


@pytest.mark.usefixtures("cluster")
def test_handles_and_references() -> None:
    actor, gate = Counter.remote(), Gate.remote()
    identity = actor._actor_id.hex()
    assert repr(actor.add) == f"ActorMethod(add of Actor(Counter, {identity}))"
    node = shoal.get_runtime_context().get_node_id()
    task, call = let_through.remote(gate), actor.add.remote(gate)
    shoal.get(gate.arrived.remote(2))
    about = {"job": shoal.get_runtime_context().get_job_id(), "methods": "add, fail"}
    process = rows(actor).pop("process")
    assert rows(actor) == {"state": "ALIVE", "node": node, "process": process, **about}
    assert rows(task) == {"state": "pending", "function": "let_through", "node": node}
    assert rows(call) == {"state": "pending", "function": "Counter.add", "actor": identity}
    shoal.get(gate.open.remote())
    shoal.get([task, call])
    assert rows(task) == {"state": "ready"}
    failed = actor.fail.remote()
    shoal.wait([failed])
    shown = rows(failed)
    assert shown.pop("process").startswith(f"{process} on ")
    about_failed = {"function": "Counter.fail", "actor": identity, "error": "ValueError: no more"}
    assert shown == {"state": "failed", **about_failed}
    large = rows(shoal.put(np.zeros(1 << 20, np.uint8)))
    assert (large["state"], large["node"]) == ("ready", node)
    assert large["size"].endswith(" bytes")

    shoal.kill(actor)
    lost = actor.fail.remote()
    shoal.wait([lost])
    assert rows(actor) == {"state": "DEAD", "reason": "the actor was killed by shoal.kill", **about}
    shown = rows(lost)
    assert shown.pop("error").startswith("shoal.exceptions.ActorDiedError: ")
    assert shown == {"state": "failed"}


@pytest.mark.usefixtures("cluster")
def test_a_reference_that_another_process_owns() -> None:
    gate = Gate.remote()

    @shoal.remote(num_cpus=0)
    def show(refs: list[Any]) -> dict[str, str]:
        return rows(refs[0])

    pending = let_through.remote(gate)
    shown = shoal.get(show.remote([pending]))
    assert shown.pop("owner").startswith("worker ")
    assert shown == {"state": "pending"}
    shoal.get(gate.open.remote())
    shoal.get(pending)


@pytest.mark.usefixtures("cluster")
def test_placement_groups() -> None:
    group = placement_group([{"CPU": 1}, {"CPU": 1}], strategy="PACK")
    assert group.wait(60)
    node = shoal.get_runtime_context().get_node_id()
    assert repr(group).startswith(f"PlacementGroup({group.id.hex()}")
    on = f"{{'CPU': 1.0}} on node {node}"
    assert rows(group) == {"state": "CREATED", "strategy": "PACK", "bundle 0": on, "bundle 1": on}
    remove_placement_group(group)
    assert rows(group)["state"] == "REMOVED"


def test_sessions(no_cluster: None) -> None:
    context = shoal.init(num_cpus=1, logging_level="ERROR")
    shown = rows(context)
    assert shown["Shoal"] == shoal.__version__
    assert shown["address"] == context.address_info["address"]
    ref, actor = shoal.put(1), Counter.remote()
    shoal.shutdown()
    assert rows(ref) == {"state": "its session is over"}
    assert rows(actor)["state"] == "its session is over"


class Notebook:
    """What IPython is to whoever asks it for its shell and shows something there."""

    def __init__(self) -> None:
        self.kernel = object()
        self.shown: queue.Queue[str] = queue.Queue()

    def display(self, data: dict[str, str], *, raw: bool, display_id: bool) -> Handle:
        assert raw and display_id
        self.shown.put(html.unescape(data["text/html"]))
        return Handle(self)

    def shows(self, text: str) -> None:
        while text not in self.shown.get(timeout=PATIENCE_S):
            pass


class Handle:
    """Of one place where something is shown."""

    def __init__(self, notebook: Notebook) -> None:
        self._notebook = notebook

    def update(self, data: dict[str, str], *, raw: bool) -> None:
        assert raw
        self._notebook.shown.put(html.unescape(data["text/html"]))


def test_a_notebook_shows_a_session_as_it_is_now(no_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = Notebook()
    monkeypatch.setattr(panel, "EVERY_S", 0.05)
    context = shoal.init(num_cpus=2, logging_level="ERROR")
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    with pytest.raises(NotImplementedError):
        context._ipython_display_()  # by which a prompt of IPython shows its repr
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: notebook))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=notebook.display))
    context._ipython_display_()
    notebook.shows(">0/2<")
    gate = Gate.options(num_cpus=1).remote()
    notebook.shows(">1/2<")
    context._ipython_display_()
    notebook.shows(">1/2<")
    del gate
    notebook.shows(">0/2<")
    shoal.shutdown()
    notebook.shows("has ended")
    assert not [thread for thread in threading.enumerate() if thread.name == "shoal-panel"]
    with pytest.raises(NotImplementedError):
        context._ipython_display_()
