"""What the runtime context says, without a cluster: in a driver, in a task, in an actor."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest

import shoal
from shoal import _context, _current
from shoal.runtime_context import RuntimeContext
from shoal_common import ids
from shoal_common.placement.strategy import Strategy

JOB = ids.job_of_number(3)
NODE, WORKER = b"n" * ids.NODE_LENGTH, b"w" * ids.WORKER_LENGTH
TASK = ids.TaskIDs(JOB).next()
ACTOR = ids.new_actor_id(JOB)

context = RuntimeContext()


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    core = SimpleNamespace(
        role="driver",
        job_id=JOB,
        node_id=NODE,
        worker_id=WORKER,
        namespace="space",
        session_dir="/tmp/shoal/session_1",
        session_name="session_1",
        gcs=SimpleNamespace(address="10.0.0.1:6381"),
    )
    monkeypatch.setattr(_current, "_current", core)
    monkeypatch.setattr(_context, "process", _context.ProcessContext())
    return core


@pytest.fixture
def task(driver: SimpleNamespace) -> Iterator[_context.TaskContext]:
    driver.role = "worker"
    _context.process.resources = {"CPU": 1.0}
    running = _context.TaskContext(TASK, "named", "f", 2)
    running.function = test_in_a_task
    token = _context.current_task.set(running)
    yield running
    _context.current_task.reset(token)


@pytest.fixture
def actor(task: _context.TaskContext) -> _context.ProcessContext:
    process = _context.process
    process.actor_id, process.actor_name, process.actor_class = ACTOR, "", SimpleNamespace
    process.incarnation, process.resources = 1, {}
    task.function_name = "m"
    return process


def test_without_a_session_it_has_a_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_current, "_current", None)
    assert repr(context) == "RuntimeContext()"


def test_in_a_driver(driver: SimpleNamespace) -> None:
    assert (context.job_id, context.get_job_id()) == (shoal.JobID(JOB), JOB.hex())
    assert (context.node_id, context.get_node_id()) == (shoal.NodeID(NODE), NODE.hex())
    assert (context.worker_id, context.get_worker_id()) == (shoal.WorkerID(WORKER), WORKER.hex())
    assert context.get() == {"job_id": shoal.JobID(JOB), "node_id": shoal.NodeID(NODE), "namespace": "space"}
    assert (
        repr(context)
        == f"RuntimeContext(job_id={shoal.JobID(JOB)!r}, node_id={shoal.NodeID(NODE)!r}, namespace='space')"
    )
    assert context.namespace == "space"
    assert context.gcs_address == "10.0.0.1:6381"
    assert (context.get_temp_dir(), context.get_session_name()) == ("/tmp/shoal", "session_1")
    assert (context.runtime_env, context.get_runtime_env_string()) == ({}, "{}")


@pytest.mark.parametrize(
    "method",
    [
        "get_task_id",
        "get_task_name",
        "get_task_function_name",
        "get_attempt_number",
        "get_actor_id",
        "get_actor_name",
        "get_placement_group_id",
        "get_idempotency_key",
    ],
)
def test_what_does_not_apply_in_a_driver_is_none(driver: SimpleNamespace, method: str) -> None:
    assert getattr(context, method)() is None


def test_what_only_workers_have(driver: SimpleNamespace) -> None:
    with pytest.raises(AssertionError, match="only be called in a task or actor"):
        context.get_assigned_resources()
    with pytest.raises(RuntimeError, match="only be called in a task or actor"):
        context.is_canceled()
    with pytest.raises(RuntimeError, match="only available in an actor"):
        context.current_actor  # noqa: B018
    with pytest.raises(RuntimeError, match="only available in an actor"):
        context.was_current_actor_reconstructed  # noqa: B018


def test_in_a_task(task: _context.TaskContext) -> None:
    assert (context.task_id, context.get_task_id()) == (shoal.TaskID(TASK), TASK.hex())
    assert (context.get_task_name(), context.get_attempt_number()) == ("named", 2)
    assert context.get_task_function_name() == f"{__name__}.test_in_a_task"
    assert context.get_assigned_resources() == {"CPU": 1.0}
    assert context.is_canceled() is False
    assert (context.actor_id, context.get_actor_id(), context.get_actor_name()) == (None, None, None)


def test_in_an_actor(actor: _context.ProcessContext) -> None:
    assert (context.actor_id, context.get_actor_id()) == (shoal.ActorID(ACTOR), ACTOR.hex())
    assert context.get_actor_name() == ""
    assert context.get_task_function_name() == "types.SimpleNamespace.m"
    assert context.get_assigned_resources() == {}
    assert set(context.get()) == {"job_id", "node_id", "namespace", "task_id", "actor_id"}
    reconstructed = []
    for actor.incarnation in (1, 2):
        reconstructed.append(context.was_current_actor_reconstructed)
    assert reconstructed == [False, True]


def test_in_a_placement_group(task: _context.TaskContext) -> None:
    group = ids.new_placement_group_id(JOB)
    assert context.current_placement_group_id is None
    assert not context.should_capture_child_tasks_in_placement_group
    _context.process.strategy = Strategy(group_id=group, captures=True).encode()
    assert context.current_placement_group_id == shoal.PlacementGroupID(group)
    assert context.get_placement_group_id() == group.hex()
    assert context.should_capture_child_tasks_in_placement_group


def test_devices_by_family(task: _context.TaskContext) -> None:
    _context.process.devices = {"GPU": ["1"]}
    assert context.get_accelerator_ids() == context.get_resource_ids()
    assert context.get_accelerator_ids()["GPU"] == ["1"]
    assert context.get_accelerator_ids()["neuron_cores"] == context.get_accelerator_ids()["TTNPU"] == []
