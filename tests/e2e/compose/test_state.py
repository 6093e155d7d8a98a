"""The state is where it survives, looked up with the servers' own clients."""

from __future__ import annotations

from minio import Minio
from support.processes import eventually
from support.stack import Stack

#: Puts more into a store of 256 MiB than it holds; spills some, tells its job, and reads all back when asked.
SPILLING = """
import numpy as np
ray.init()
refs = [ray.put(np.full(8_000_000, number)) for number in range(8)]
report(job=ray.get_runtime_context().get_job_id())
assert command() == "read"
report(values=[int(ray.get(ref)[-1]) for ref in refs])
assert command() == "forget"
del refs
report(forgotten=True)
command()
"""


def spilled(stack: Stack, job: str) -> list[str]:
    """What MinIO has of a job, as its own client sees it."""
    client = Minio(
        f"{stack.address('minio', 'minio')}:9000",
        stack.read("minio", "/run/shoal-minio/user"),
        stack.read("minio", "/run/shoal-minio/password"),
        secure=False,
    )
    return [item.object_name for item in client.list_objects("shoal", prefix=f"spill/{job}/", recursive=True)]


def test_spilled_objects_are_in_minio_until_their_last_reference_goes(stack: Stack) -> None:
    with stack.driver(SPILLING) as driver:
        job = driver.report()["job"]
        eventually(lambda: spilled(stack, job), "something is spilled")
        driver.tell("read")
        assert driver.report()["values"] == list(range(8))
        driver.tell("forget")
        assert driver.report()["forgotten"]
        eventually(lambda: not spilled(stack, job), "MinIO has nothing of it any more")


def test_what_a_dead_driver_spilled_is_swept(stack: Stack) -> None:
    with stack.driver(SPILLING) as driver:
        job = driver.report()["job"]
        eventually(lambda: spilled(stack, job), "something is spilled")
    eventually(lambda: not spilled(stack, job), "MinIO has nothing of the job any more")


def test_any_objectstore_replica_restores(shaken: Stack) -> None:
    with shaken.driver(SPILLING) as driver:
        job = driver.report()["job"]
        eventually(lambda: spilled(shaken, job), "something is spilled")
        shaken.running("objectstore")[0].kill()
        driver.tell("read")
        assert driver.report()["values"] == list(range(8))
        driver.tell("forget")
        driver.report()
