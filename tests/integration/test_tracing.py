"""OpenTelemetry spans: one trace from the driver through nested tasks and actor calls."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.drivers import Driver

import shoal
from shoal._tracing import import_from_string
from shoal.exceptions import RuntimeEnvSetupError

HOOK = "shoal.util.tracing.setup_local_tmp_tracing:setup_tracing"

PROGRAM = """
from opentelemetry import trace

@ray.remote
def leaf(x):
    with trace.get_tracer("program").start_as_current_span("inside the leaf"):
        return x

@ray.remote
def branch(x):
    return sum(ray.get([leaf.remote(x), leaf.remote(x)]))

@ray.remote
class Counter:
    def __init__(self):
        self.first = ray.get(leaf.remote(1))

    def add(self, x):
        return self.first + ray.get(branch.remote(x))

    def fail(self):
        raise KeyError("no")

    def items(self):
        yield ray.get(leaf.remote(1))

@ray.remote
class Async:
    async def add(self, x):
        return await branch.remote(x)

ray.init(num_cpus=4, log_to_driver=False, _tracing_startup_hook=HOOK)
with trace.get_tracer("program").start_as_current_span("the program"):
    counter = Counter.remote()
    assert ray.get(counter.add.options(name="named").remote(2)) == 5
    assert ray.get(Async.remote().add.remote(3)) == 6
    assert [ray.get(item) for item in counter.items.remote()] == [1]
    try:
        ray.get(counter.fail.remote())
    except KeyError:
        pass
ray.get(leaf.remote(1))
report(tracing=ray.util.tracing.tracing_helper._is_tracing_enabled())
ray.shutdown()
report(tracing=ray.util.tracing.tracing_helper._is_tracing_enabled())
"""


@pytest.fixture(scope="module")
def spans(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[dict[str, Any]]]:
    directory = tmp_path_factory.mktemp("spans")
    code = f"HOOK = {HOOK!r}\nimport shoal.util.tracing.tracing_helper\n" + textwrap.dedent(PROGRAM)
    with Driver(code, env={"SHOAL_SPANS_DIRECTORY": str(directory)}) as driver:
        assert driver.report() == {"tracing": True}
        assert driver.report() == {"tracing": False}
        assert driver.wait() == 0, driver.text
    yield [json.loads(line) for path in sorted(directory.iterdir()) for line in path.read_text().splitlines()]


def path_of(span: dict[str, Any], by_id: dict[str, dict[str, Any]]) -> list[str]:
    """Names from the root to the span."""
    names: list[str] = []
    at: dict[str, Any] | None = span
    while at is not None:
        names.insert(0, at["name"])
        at = by_id[at["parent_id"]] if at["parent_id"] else None
    return names


def called(*names: str) -> list[str]:
    return [part for name in names for part in (f"{name} shoal.remote", f"{name} shoal.remote_worker")]


def test_one_trace_through_all_that_is_called(spans: list[dict[str, Any]]) -> None:
    by_id = {span["context"]["span_id"]: span for span in spans}
    [program] = [span for span in spans if span["name"] == "the program"]
    trace_id = program["context"]["trace_id"]
    paths = [path_of(span, by_id) for span in spans if span["context"]["trace_id"] == trace_id]
    for names in (
        ("Counter.__init__", "leaf"),
        ("named", "branch", "leaf"),
        ("Async.add", "branch", "leaf"),
        ("Counter.items", "leaf"),
        ("Counter.fail",),
    ):
        assert ["the program", *called(*names)] in paths, names
    assert ["the program", *called("named", "branch", "leaf"), "inside the leaf"] in paths
    others = [path_of(span, by_id) for span in spans if span["context"]["trace_id"] != trace_id]
    assert sorted(others) == [called("leaf")[:1], called("leaf"), [*called("leaf"), "inside the leaf"]]


def test_what_a_span_tells(spans: list[dict[str, Any]]) -> None:
    by_name = {span["name"]: span for span in spans}
    failed = by_name["Counter.fail shoal.remote_worker"]
    assert failed["kind"] == "SpanKind.CONSUMER"
    assert failed["status"] == {"status_code": "ERROR", "description": "KeyError: 'no'"}
    assert failed["events"][0]["attributes"]["exception.type"] == "KeyError"
    sent = by_name["Counter.fail shoal.remote"]
    assert sent["kind"] == "SpanKind.PRODUCER"
    assert sent["attributes"]["shoal.task_id"] == failed["attributes"]["shoal.task_id"]
    assert sent["attributes"]["process.pid"] != failed["attributes"]["process.pid"]
    assert failed["attributes"]["shoal.attempt"] == 0


@pytest.mark.parametrize(
    ("hook", "error", "words"),
    [
        ("no_colon", ValueError, 'must be in format "<module>:<attribute>"'),
        ("os:no_such_name", ValueError, "Attribute 'no_such_name' not found in module 'os'"),
        ("no_such_module:x", ImportError, "no_such_module"),
    ],
)
def test_hooks_that_are_none(hook: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        import_from_string(hook)


def fails_in_workers() -> None:
    if os.getpid() != int(os.environ["DRIVER_PID"]):
        raise OSError("no collector")


def test_a_hook_that_fails_in_a_worker(no_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIVER_PID", str(os.getpid()))
    hook = f"{fails_in_workers.__module__}:fails_in_workers"
    shoal.init(num_cpus=1, log_to_driver=False, logging_level="ERROR", _tracing_startup_hook=hook)
    with pytest.raises(RuntimeEnvSetupError, match=r"(?s)_tracing_startup_hook failed:.*OSError: no collector"):
        shoal.get(_pid.remote())


@shoal.remote
def _pid() -> int:
    return os.getpid()


def test_as_the_environment_says(tmp_path: Path) -> None:
    code = """
    @ray.remote
    def f():
        return 1

    ray.init(num_cpus=1)
    assert ray.get(f.remote()) == 1
    ray.shutdown()
    """
    with Driver(code, env={"OTEL_TRACES_EXPORTER": "console"}) as driver:
        assert driver.wait() == 0
        assert '"name": "f shoal.remote"' in driver.text
