"""Assets that go through dagster-ray's IO manager, computed on its local resource."""

import os

import dagster as dg
from dagster_ray import LocalRay, RayIOManager, RayResource

import ray

DAYS = dg.StaticPartitionsDefinition(["monday", "tuesday"])


@ray.remote
def square(x):
    return x * x


@dg.asset(io_manager_key="in_ray")
def squares(cluster: RayResource) -> list[int]:
    assert cluster.runtime_job_id == ray.get_runtime_context().get_job_id()
    return ray.get([square.remote(i) for i in range(10)])


@dg.asset(io_manager_key="in_ray")
def total(cluster: RayResource, squares: list[int]) -> int:
    return sum(squares)


@dg.asset(io_manager_key="in_ray", partitions_def=DAYS)
def visits(context: dg.AssetExecutionContext, cluster: RayResource) -> int:
    return len(context.partition_key)


@dg.asset(io_manager_key="in_ray")
def week(cluster: RayResource, visits: dict[str, int]) -> int:
    return sum(visits.values())


if __name__ == "__main__":
    os.environ["DAGSTER_DISABLE_TELEMETRY"] = "yes"
    local = LocalRay(ray_init_options={"num_cpus": 2})
    with_ray = {"cluster": local, "in_ray": RayIOManager()}
    done = dg.materialize([squares, total], resources=with_ray)
    assert done.success
    assert done.output_for_node("squares") == [i * i for i in range(10)]
    assert done.output_for_node("total") == 285
    assert not ray.is_initialized(), "the resource has ended what it began"

    # What one run has stored another one finds, as long as the cluster lives.
    with ray.init(num_cpus=2):
        in_ray = {"cluster": dg.ResourceDefinition.none_resource(), "in_ray": RayIOManager()}
        instance = dg.DagsterInstance.ephemeral()
        for day in DAYS.get_partition_keys():
            assert dg.materialize([visits], partition_key=day, resources=in_ray, instance=instance).success
        done = dg.materialize([visits, week], selection=[week], resources=in_ray, instance=instance)
        assert done.output_for_node("week") == len("monday") + len("tuesday")
    print("dagster", dg.__version__)
