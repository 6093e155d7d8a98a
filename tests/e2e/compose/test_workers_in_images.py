"""Workers in containers (``runtime_env["image_uri"]``), of a raylet that runs beside the Docker engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import docker
import numpy as np
import pytest
from support.processes import eventually

import shoal
from shoal import cloudpickle, exceptions
from shoal_raylet.workers.process_tree import children

#: This file is not in the images.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

#: Without Shoal, which comes along from the node.
IMAGE = "shoal-local/python:3.11"
#: With Shoal, and scikit-learn.
RAYLET_IMAGE = "shoal/raylet:0.1.0"

pytestmark = pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the images have Python 3.11")


@pytest.fixture(scope="module")
def engine(client: docker.DockerClient) -> Iterator[docker.DockerClient]:
    yield client
    eventually(lambda: not left(client), "all containers of workers are gone")


def left(client: docker.DockerClient) -> list[str]:
    return [
        each.name for each in client.containers.list(all=True, filters={"name": "shoal-worker-"}, ignore_removed=True)
    ]


@pytest.fixture(scope="module")
def cluster(engine: docker.DockerClient) -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="images-", dir="/tmp") as directory:
        shoal.init("local", num_cpus=2, logging_level="ERROR", _temp_dir=directory)
        yield
        shoal.shutdown()


@shoal.remote(runtime_env={"image_uri": IMAGE, "env_vars": {"GIVEN": "value, with = and spaces"}})
class InImage:
    def where(self) -> tuple[bool, str, str | None, int]:
        return Path("/run/shoal-node").exists(), sys.executable, os.environ.get("GIVEN"), os.getpid()

    def same(self, value: object) -> object:
        return value

    def nested(self) -> bool:
        return shoal.get(in_container.remote())

    def leave_child_and_die(self, code: int) -> None:
        subprocess.Popen(["sleep", "1000"], start_new_session=True)
        os._exit(code)


@shoal.remote
def in_container() -> bool:
    return Path("/run/shoal-node").exists()


@pytest.mark.usefixtures("cluster")
def test_an_actor_in_an_image(engine: docker.DockerClient) -> None:
    actor = InImage.remote()
    inside, python, given, pid = shoal.get(actor.where.remote())
    assert (inside, python, given) == (True, "/usr/bin/python3", "value, with = and spaces")
    assert Path(f"/proc/{pid}").exists(), "by the same pid as outside"
    assert not shoal.get(in_container.remote())
    array = np.arange(1_000_000)
    back = shoal.get(actor.same.remote(shoal.put(array)))
    assert np.array_equal(back, array)
    assert shoal.get(actor.nested.remote()), "children inherit it"
    assert len(left(engine)) == 1, "one container for all"
    with pytest.raises(exceptions.ActorDiedError, match="exited with code 7"):
        shoal.get(actor.leave_child_and_die.remote(7))
    [container] = engine.containers.list(filters={"name": "shoal-worker-"})
    eventually(lambda: "sleep" not in str(container.top()["Processes"]), "its child has ended")


@pytest.mark.usefixtures("cluster")
def test_an_image_that_has_shoal() -> None:
    @shoal.remote(runtime_env={"container": {"image": RAYLET_IMAGE, "run_options": ["--env", "OPTION=1"]}})
    def version() -> tuple[str, str, str | None]:
        import sklearn

        return sklearn.__file__, shoal.__file__ or "", os.environ.get("OPTION")

    paths = shoal.get(version.remote())
    assert paths[0].startswith("/opt/shoal/") and paths[1].startswith("/opt/shoal/") and paths[2] == "1"


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("environment", "text"),
    [
        (
            {"image_uri": "127.0.0.1:9/nowhere:1"},
            "9/nowhere:1: the node does not have this image, and cannot pull it",
        ),
        ({"image_uri": IMAGE, "py_executable": "python9"}, "python9 does not run in it"),
        ({"image_uri": IMAGE, "py_executable": "echo"}, "echo is no Python in it"),
    ],
)
def test_images_that_cannot_be_used(environment: dict[str, str], text: str) -> None:
    with pytest.raises(exceptions.RuntimeEnvSetupError, match=text):
        shoal.get(in_container.options(runtime_env=environment).remote())


PROGRAM = """
import os, shoal, sys, time

shoal.init("local", num_cpus=1, runtime_env={"image_uri": sys.argv[1]}, _temp_dir=sys.argv[2])

@shoal.remote
def run():
    print("runs", flush=True)
    while True:
        time.sleep(1)

run.remote()
time.sleep(1000)
"""


def test_nothing_remains_of_a_driver_that_is_killed(engine: docker.DockerClient) -> None:
    with tempfile.TemporaryDirectory(prefix="images-", dir="/tmp") as directory:
        script = Path(directory, "program.py")
        script.write_text(PROGRAM)
        command = [sys.executable, "-u", str(script), IMAGE, directory]
        others = left(engine)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
            try:
                assert driver.stdout is not None
                assert any("runs" in line for line in driver.stdout)
                [name] = {*left(engine)} - {*others}
                for pid in children(driver.pid):  # the head
                    os.kill(pid, signal.SIGKILL)
                eventually(lambda: name not in left(engine), "the container has ended with its raylet")
            finally:
                driver.kill()
