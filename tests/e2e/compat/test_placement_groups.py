"""Placement groups: bundles that are reserved together, and what runs in them."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from e2e.compat.target import alive, better_than_ray, eventually, exceptions, new_signal, ray, run, script, submodule

api: Any = submodule("util.placement_group")
In: Any = submodule("util.scheduling_strategies").PlacementGroupSchedulingStrategy

pytestmark = pytest.mark.usefixtures("cluster")

#: Groups of the running test.
made: list[Any] = []


@pytest.fixture(autouse=True)
def _everything_is_given_back(cluster: None) -> Iterator[None]:
    yield
    while made:
        ray.util.remove_placement_group(made.pop())
    eventually(lambda: ray.available_resources().get("CPU") == 4.0, "all bundles are given back")


def group(*bundles: dict[str, float], **options: Any) -> Any:
    made.append(ray.util.placement_group(list(bundles), **options))
    return made[-1]


def created(*bundles: dict[str, float], **options: Any) -> Any:
    new = group(*bundles, **options)
    assert new.wait(60)
    return new


@ray.remote
def where() -> tuple[str | None, dict[str, float], bool]:
    context = ray.get_runtime_context()
    captures = context.should_capture_child_tasks_in_placement_group
    return context.get_placement_group_id(), context.get_assigned_resources(), captures


@ray.remote
def child(**options: Any) -> tuple[str | None, dict[str, float], bool]:
    """Where a task that needs no CPU runs that this one starts."""
    place: tuple[str | None, dict[str, float], bool] = ray.get(where.options(num_cpus=0, **options).remote())
    return place


@ray.remote
def pid_when(signal: Any) -> int:
    ray.get(signal.wait.remote())
    return os.getpid()


@ray.remote
class Actor:
    def where(self) -> tuple[str | None, dict[str, float]]:
        context = ray.get_runtime_context()
        return context.get_placement_group_id(), context.get_assigned_resources()

    def pid(self) -> int:
        return os.getpid()

    def child(self, **options: Any) -> Any:
        return ray.get(where.options(num_cpus=0, **options).remote())


# --- making them ---


def test_ready_resolves_to_the_group() -> None:
    pg = group({"CPU": 1}, {"CPU": 1, "custom": 1})
    assert ray.get(pg.ready(), timeout=60) == pg
    assert pg.wait(timeout_seconds=1) is True
    assert pg.bundle_specs == [{"CPU": 1.0}, {"CPU": 1.0, "custom": 1.0}]
    assert pg.bundle_count == 2
    assert pg.is_empty is False


def test_the_bundles_are_taken_from_the_cluster_and_are_resources_of_their_own() -> None:
    pg = created({"CPU": 1}, {"CPU": 1, "custom": 1})
    own = f"_{pg.id.hex()}"
    expected = {f"CPU_group_0{own}": 1.0, f"CPU_group_1{own}": 1.0, f"CPU_group{own}": 2.0, f"custom_group{own}": 1.0}
    eventually(lambda: ray.available_resources()["CPU"] == 2.0, "the bundles' CPUs are taken")
    eventually(lambda: expected.items() <= ray.available_resources().items(), "the bundles' resources are there")
    total = ray.cluster_resources()
    assert total["CPU"] == 4.0
    assert expected.items() <= total.items()
    ray.util.remove_placement_group(pg)
    eventually(lambda: own not in "".join(ray.cluster_resources()), "they go with the group")


def test_all_bundles_are_reserved_or_none() -> None:
    pg = group({"CPU": 3}, {"CPU": 3})
    assert pg.wait(0.3) is False
    assert ray.get(where.options(num_cpus=4).remote(), timeout=60)[0] is None
    assert api.placement_group_table(pg)["state"] == "PENDING"


def test_a_group_waits_until_there_is_room() -> None:
    first = created({"CPU": 3})
    second = group({"CPU": 2})
    assert second.wait(0.2) is False
    ray.util.remove_placement_group(first)
    assert second.wait(60) is True


def test_a_group_waits_for_running_tasks() -> None:
    signal = new_signal()
    running = pid_when.options(num_cpus=3).remote(signal)
    eventually(lambda: ray.get(signal.waiters.remote()) == 1, "it runs")
    holder = Actor.options(num_cpus=2).remote()
    ray.get(holder.pid.remote(), timeout=60)  # what waits in get lends its CPU
    pg = group({"CPU": 3})
    assert pg.wait(0.2) is False
    ray.kill(holder)
    ray.get([signal.send.remote(), running])
    assert pg.wait(60) is True


@pytest.mark.parametrize("strategy", ["PACK", "SPREAD", "STRICT_PACK"])
def test_strategies_that_one_node_can_serve(strategy: str) -> None:
    pg = created({"CPU": 1}, {"CPU": 1}, strategy=strategy)
    table = api.placement_group_table(pg)
    assert table["strategy"] == strategy
    assert len(set(table["bundles_to_node_id"].values())) == 1


def test_strict_spread_waits_for_more_nodes() -> None:
    assert group({"CPU": 1}, {"CPU": 1}, strategy="STRICT_SPREAD").wait(0.3) is False


def test_the_table() -> None:
    pg = created({"CPU": 1}, {"custom": 0.5}, name="in the table")
    row = api.placement_group_table(pg)
    node_id = ray.get_runtime_context().get_node_id()
    expected = {
        "placement_group_id": pg.id.hex(),
        "name": "in the table",
        "bundles": {0: {"CPU": 1.0}, 1: {"custom": 0.5}},
        "bundles_to_node_id": {0: node_id, 1: node_id},
        "strategy": "PACK",
        "state": "CREATED",
    }
    assert expected.items() <= row.items()
    assert api.placement_group_table()[pg.id.hex()]["state"] == "CREATED"


def test_a_handle_can_be_sent_and_compared() -> None:
    pg = created({"CPU": 1})
    copy = pickle.loads(pickle.dumps(pg))
    assert copy == pg and hash(copy) == hash(pg)
    assert copy != group({"CPU": 1})

    @ray.remote(num_cpus=0)
    def use(given: Any) -> Any:
        return given, given.bundle_specs, ray.get(where.options(scheduling_strategy=In(given)).remote())[0]

    assert ray.get(use.remote(pg), timeout=60) == (pg, [{"CPU": 1.0}], pg.id.hex())


@pytest.mark.parametrize(
    "bundles",
    [[], {}, "CPU", None, [{}], [{"CPU": 0}], [{"CPU": 1}, {"GPU": 0.0}], [1], [{"CPU": "1"}], [{1: 1}]],
)
def test_bundles_that_are_none(bundles: Any) -> None:
    with pytest.raises(ValueError, match=r"[Bb]undles"):
        ray.util.placement_group(bundles)


@better_than_ray
@pytest.mark.parametrize("amount", [-1, float("nan"), float("inf")])
def test_amounts_that_are_none(amount: float) -> None:
    """With Ray, a negative amount kills the node."""
    with pytest.raises(ValueError, match="Bundles"):
        ray.util.placement_group([{"CPU": amount}])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "X"}, "Invalid placement group strategy X"),
        ({"lifetime": "long"}, "`lifetime` argument must be either `None` or 'detached'"),
        ({"bundle_label_selector": []}, "should equal the length"),
        ({"bundle_label_selector": [{}, {}]}, "should equal the length"),
        ({"bundle_label_selector": ["a"]}, "must be a list of string dictionary"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ray.util.placement_group([{"CPU": 1}], **options)


# --- names and lifetime ---


def test_a_named_group_is_found_until_it_is_removed() -> None:
    pg = created({"CPU": 1}, name="named")
    assert ray.util.get_placement_group("named") == pg
    with pytest.raises(exceptions.RaySystemError, match="exists"):
        ray.util.placement_group([{"CPU": 1}], name="named")
    ray.util.remove_placement_group(pg)
    with pytest.raises(ValueError, match="Failed to look up placement group with name: named"):
        ray.util.get_placement_group("named")
    with pytest.raises(ValueError, match="non-empty"):
        ray.util.get_placement_group("")
    assert group({"CPU": 1}, name="named") != pg


def test_a_group_ends_with_its_driver_unless_it_is_detached() -> None:
    address = ray.get_runtime_context().gcs_address
    run(
        "-c",
        script(f"""
        import os
        ray.init("{address}", namespace="compat", **QUIET)
        for name, lifetime in (("short", None), ("long", "detached")):
            pg = ray.util.placement_group([{{"CPU": 1}}], name=name, lifetime=lifetime)
            assert pg.wait(60)
        """),
    )
    made.append(ray.util.get_placement_group("long"))
    assert made[-1].wait(60)
    assert ray.get(where.options(scheduling_strategy=In(made[-1])).remote(), timeout=60)[0] == made[-1].id.hex()

    def is_gone() -> bool:
        states = {row["name"]: row["state"] for row in api.placement_group_table().values()}
        return states["short"] == "REMOVED" and states["long"] == "CREATED"

    eventually(is_gone, "the group ends with its driver")


def test_a_group_ends_with_the_detached_actor_that_made_it() -> None:
    @ray.remote(num_cpus=0)
    class Maker:
        def make(self) -> Any:
            pg = ray.util.placement_group([{"CPU": 1}])
            assert pg.wait(60)
            return pg

    maker = Maker.options(lifetime="detached", name="maker of a group").remote()
    pg = ray.get(maker.make.remote(), timeout=60)
    assert api.placement_group_table(pg)["state"] == "CREATED"
    ray.kill(maker)
    eventually(lambda: api.placement_group_table(pg)["state"] == "REMOVED", "the group ends")


# --- running in them ---


@pytest.mark.parametrize("index", [-1, 0, 1])
def test_a_task_runs_in_the_group(index: int) -> None:
    pg = created({"CPU": 1}, {"CPU": 1})
    strategy = In(placement_group=pg, placement_group_bundle_index=index)
    assert ray.get(where.options(scheduling_strategy=strategy).remote(), timeout=60) == (
        pg.id.hex(),
        {"CPU": 1.0},
        False,
    )


def test_the_older_options_work_too() -> None:
    pg = created({"CPU": 1})
    task = where.options(placement_group=pg, placement_group_bundle_index=0)
    assert ray.get(task.remote(), timeout=60)[0] == pg.id.hex()
    assert ray.get(where.options(placement_group=None).remote(), timeout=60)[0] is None


def test_an_actor_runs_in_the_group() -> None:
    pg = created({"CPU": 1}, {"CPU": 1})
    one = Actor.options(scheduling_strategy=In(pg, 1), num_cpus=1).remote()
    assert ray.get(one.where.remote(), timeout=60) == (pg.id.hex(), {"CPU": 1.0})
    free = Actor.options(scheduling_strategy=In(pg)).remote()
    assert ray.get(free.where.remote(), timeout=60) == (pg.id.hex(), {})


def test_what_is_created_before_the_group_has_room_waits_for_it() -> None:
    first = created({"CPU": 4})
    second = group({"CPU": 2})
    task = where.options(scheduling_strategy=In(second)).remote()
    actor = Actor.options(scheduling_strategy=In(second), num_cpus=1).remote()
    called = actor.where.remote()
    assert ray.wait([task, called], num_returns=1, timeout=0.3)[0] == []
    ray.util.remove_placement_group(first)
    assert ray.get(task, timeout=60)[0] == ray.get(called, timeout=60)[0] == second.id.hex()


def test_a_bundle_takes_no_more_than_it_holds() -> None:
    pg = created({"CPU": 1}, {"CPU": 1})
    holder = Actor.options(scheduling_strategy=In(pg, 0), num_cpus=1).remote()
    ray.get(holder.pid.remote(), timeout=60)
    waiting = where.options(scheduling_strategy=In(pg, 0)).remote()
    assert ray.get(where.options(scheduling_strategy=In(pg, 1)).remote(), timeout=60)[0] == pg.id.hex()
    assert ray.get(where.options(scheduling_strategy=In(pg)).remote(), timeout=60)[0] == pg.id.hex()
    assert ray.wait([waiting], timeout=0.3)[0] == []
    ray.kill(holder)
    assert ray.get(waiting, timeout=60)[0] == pg.id.hex()


def test_others_do_not_get_what_a_bundle_holds() -> None:
    pg = created({"CPU": 3})
    waiting = where.options(num_cpus=2).remote()
    assert ray.get(where.remote(), timeout=60)[0] is None
    assert ray.wait([waiting], timeout=0.3)[0] == []
    ray.util.remove_placement_group(pg)
    assert ray.get(waiting, timeout=60)[0] is None


@pytest.mark.parametrize("index", [-2, 2, 100])
def test_a_bundle_that_does_not_exist(index: int) -> None:
    pg = created({"CPU": 1}, {"CPU": 1})
    with pytest.raises(ValueError, match=f"placement group bundle index {index} is invalid"):
        where.options(scheduling_strategy=In(pg, index)).remote()
    with pytest.raises(ValueError, match=f"placement group bundle index {index} is invalid"):
        Actor.options(scheduling_strategy=In(pg, index)).remote()


def test_a_request_that_no_bundle_can_hold() -> None:
    pg = created({"CPU": 1}, {"custom": 1})
    for options in ({"num_cpus": 2}, {"num_gpus": 1}, {"resources": {"custom": 1}}):
        with pytest.raises(ValueError, match=r"Cannot schedule where .* cannot fit into any bundles"):
            where.options(scheduling_strategy=In(pg), **options).remote()
    with pytest.raises(ValueError, match=r"Cannot schedule Actor .* cannot fit into any bundles"):
        Actor.options(scheduling_strategy=In(pg), num_cpus=2).remote()
    without = created({"custom": 1})
    with pytest.raises(ValueError, match="requires 1 CPU for creation"):
        Actor.options(scheduling_strategy=In(without)).remote()
    task = where.options(scheduling_strategy=In(without), num_cpus=0, resources={"custom": 0.5})
    assert ray.get(task.remote(), timeout=60)[1] == {"custom": 0.5}


def test_a_strategy_without_a_group() -> None:
    assert ray.get(where.options(scheduling_strategy=In(None)).remote(), timeout=60)[0] is None


# --- children ---


def test_children_run_elsewhere_unless_they_are_captured() -> None:
    pg = created({"CPU": 1}, {"CPU": 1})
    assert ray.get(child.options(scheduling_strategy=In(pg)).remote(), timeout=60)[0] is None


def test_captured_children_run_in_the_group_and_so_do_theirs() -> None:
    pg = created({"CPU": 1}, {"CPU": 1})
    captures = In(pg, placement_group_capture_child_tasks=True)
    assert ray.get(child.options(scheduling_strategy=captures).remote(), timeout=60) == (pg.id.hex(), {}, True)
    actor = Actor.options(scheduling_strategy=captures, num_cpus=1).remote()
    assert ray.get(actor.child.remote(), timeout=60) == (pg.id.hex(), {}, True)


@pytest.mark.parametrize("options", [{"placement_group": None}, {"scheduling_strategy": "DEFAULT"}])
def test_a_child_can_leave_the_group(options: dict[str, Any]) -> None:
    pg = created({"CPU": 1})
    captures = In(pg, placement_group_capture_child_tasks=True)
    assert ray.get(child.options(scheduling_strategy=captures).remote(**options), timeout=60) == (None, {}, False)


def test_the_same_function_in_turn_inside_and_outside_of_a_group() -> None:
    """A worker that has run it for the one is used for the other."""
    pg = created({"CPU": 1})
    captures = In(pg, placement_group_capture_child_tasks=True)
    for _ in range(3):
        assert ray.get(child.options(scheduling_strategy=captures).remote(), timeout=60)[0] == pg.id.hex()
        assert ray.get(child.remote(), timeout=60)[0] is None


def test_a_captured_child_that_fits_no_bundle_is_refused() -> None:
    pg = created({"CPU": 1})

    @ray.remote
    def parent() -> None:
        ray.get(where.options(num_cpus=2).remote())

    with pytest.raises(ValueError, match="cannot fit into any bundles"):
        ray.get(parent.options(scheduling_strategy=In(pg, 0, True)).remote(), timeout=60)


def test_the_current_group() -> None:
    pg = created({"CPU": 1})

    @ray.remote
    def current() -> Any:
        group = api.get_current_placement_group()
        return group, group.bundle_specs

    assert api.get_current_placement_group() is None
    assert ray.get_runtime_context().get_placement_group_id() is None
    assert ray.get(current.options(scheduling_strategy=In(pg)).remote(), timeout=60) == (pg, [{"CPU": 1.0}])


# --- removal ---


def test_removal_kills_what_runs_in_the_group() -> None:
    pg = created({"CPU": 1}, {"CPU": 1})
    signal = new_signal()
    actor = Actor.options(scheduling_strategy=In(pg), num_cpus=1, max_restarts=-1).remote()
    pid = ray.get(actor.pid.remote(), timeout=60)
    running = pid_when.options(scheduling_strategy=In(pg), max_retries=0).remote(signal)
    eventually(lambda: ray.get(signal.waiters.remote()) == 1, "the task runs")
    ray.util.remove_placement_group(pg)
    ray.util.remove_placement_group(pg)
    with pytest.raises((exceptions.TaskPlacementGroupRemoved, exceptions.WorkerCrashedError)):  # with Ray, either
        ray.get(running, timeout=60)
    with pytest.raises(exceptions.RayActorError):
        ray.get(actor.pid.remote(), timeout=60)
    eventually(lambda: not alive(pid), "the actor's process ends")
    eventually(lambda: ray.available_resources().get("CPU") == 4.0, "the bundles are free again")
    assert api.placement_group_table(pg)["state"] == "REMOVED"


@better_than_ray
def test_what_waits_for_a_removed_group_fails() -> None:
    """Ray lets some of it wait for ever."""
    first = created({"CPU": 4})
    pg = group({"CPU": 2})
    task = where.options(scheduling_strategy=In(pg)).remote()
    actor = Actor.options(scheduling_strategy=In(pg)).remote()
    called, ready = actor.where.remote(), pg.ready()
    assert ray.wait([task, called, ready], num_returns=1, timeout=0.3)[0] == []
    ray.util.remove_placement_group(pg)
    for ref in (task, ready):
        with pytest.raises(exceptions.TaskPlacementGroupRemoved):
            ray.get(ref, timeout=60)
    with pytest.raises(exceptions.ActorPlacementGroupRemoved):
        ray.get(called, timeout=60)
    assert pg.wait(60) is False
    assert api.placement_group_table(first)["state"] == "CREATED"


@better_than_ray
def test_what_comes_after_the_removal_fails() -> None:
    pg = created({"CPU": 1})
    ray.util.remove_placement_group(pg)

    def refused() -> bool:
        try:
            ray.get(where.options(scheduling_strategy=In(pg)).remote(), timeout=60)
        except exceptions.TaskPlacementGroupRemoved:
            return True
        return False

    # The nodes hear of it after the caller.
    eventually(refused, "its node knows that the group is removed")
    with pytest.raises(exceptions.TaskPlacementGroupRemoved):
        ray.get(pg.ready(), timeout=60)
    actor = Actor.options(scheduling_strategy=In(pg)).remote()
    with pytest.raises(exceptions.ActorPlacementGroupRemoved):
        ray.get(actor.where.remote(), timeout=60)


@better_than_ray
def test_a_task_that_was_killed_with_its_group_is_not_retried_for_ever() -> None:
    pg = created({"CPU": 1})
    signal = new_signal()
    running = pid_when.options(scheduling_strategy=In(pg), max_retries=-1).remote(signal)
    eventually(lambda: ray.get(signal.waiters.remote()) == 1, "the task runs")
    ray.util.remove_placement_group(pg)
    with pytest.raises(exceptions.TaskPlacementGroupRemoved):
        ray.get(running, timeout=60)


# --- deadlocks that must not be ---


def test_a_task_that_waits_for_a_captured_child_lends_it_its_cpu() -> None:
    pg = created({"CPU": 1})

    @ray.remote
    def parent() -> Any:
        return ray.get(where.remote())

    captures = In(pg, placement_group_capture_child_tasks=True)
    assert ray.get(parent.options(scheduling_strategy=captures).remote(), timeout=60)[0] == pg.id.hex()


def test_many_groups_one_after_the_other_and_at_once() -> None:
    for _ in range(5):
        pg = created({"CPU": 2}, {"CPU": 2})
        assert ray.get(where.options(scheduling_strategy=In(pg, 1), num_cpus=2).remote(), timeout=60)[0] == pg.id.hex()
        ray.util.remove_placement_group(pg)
    groups = [group({"CPU": 2}) for _ in range(6)]
    tasks = [where.options(scheduling_strategy=In(pg)).remote() for pg in groups]
    for pg, task in zip(groups, tasks, strict=True):
        assert ray.get(task, timeout=60)[0] == pg.id.hex()
        ray.util.remove_placement_group(pg)
