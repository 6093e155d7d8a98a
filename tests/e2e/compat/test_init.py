"""init, shutdown and what they leave behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile

import pytest
from e2e.compat.target import (
    IS_RAY,
    MODULE,
    QUIET,
    alive,
    better_than_ray,
    eventually,
    exceptions,
    ray,
    run,
    script,
    submodule,
)

pytestmark = pytest.mark.usefixtures("no_cluster")
PREFIX = "RAY" if IS_RAY else "SHOAL"


def test_context_returned_by_init():
    context = ray.init(num_cpus=1, **QUIET)
    assert context.address_info["node_id"] == ray.get_runtime_context().get_node_id()
    assert os.path.isdir(context.address_info["session_dir"])
    assert context.address_info["address"].rpartition(":")[2].isdigit()
    assert context.python_version == ".".join(map(str, sys.version_info[:3]))
    assert hasattr(context, "dashboard_url")


@better_than_ray  # where it is a mapping with a deprecation warning
def test_context_is_a_mapping():
    context = ray.init(num_cpus=1, **QUIET)
    assert "node_id" in context
    assert "nonsense" not in context
    assert context.get("nonsense") is None
    assert context["address"] == context.get("address") == context.address_info["address"]
    assert dict(context.items()) == dict(zip(context.keys(), context.values(), strict=True)) == context.address_info


def test_context_manager():
    with ray.init(num_cpus=1, **QUIET):
        assert ray.is_initialized()
        assert ray.get(ray.put(1)) == 1
    assert not ray.is_initialized()


def test_is_initialized():
    assert not ray.is_initialized()
    ray.init(num_cpus=1, **QUIET)
    assert ray.is_initialized()
    ray.shutdown()
    assert not ray.is_initialized()


def test_second_init():
    ray.init(num_cpus=1, **QUIET)
    ref = ray.put("kept")
    with pytest.raises(RuntimeError, match=r"init twice"):
        ray.init(num_cpus=1, **QUIET)
    ray.init(num_cpus=1, ignore_reinit_error=True, **QUIET)
    assert ray.get(ref) == "kept"


def test_shutdown_is_idempotent():
    ray.shutdown()
    ray.init(num_cpus=1, **QUIET)
    ray.shutdown()
    ray.shutdown()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"nonsense": 1}, RuntimeError, "Unknown keyword argument"),
        ({"address": "127.0.0.1:1", "num_cpus": 2}, ValueError, "num_cpus"),
        ({"address": "127.0.0.1:1", "resources": {"x": 1}}, ValueError, "num_cpus|resources"),
        ({"address": "127.0.0.1:1", "object_store_memory": 10**9}, ValueError, "object_store_memory"),
        ({"allow_multiple": True}, RuntimeError, None),
        ({"job_config": 1}, TypeError, "job_config|JobConfig"),
        ({"namespace": 1}, TypeError, "namespace"),
        ({"resources": {"CPU": 2}}, (ValueError, AssertionError), None),
        ({"num_cpus": -1}, ValueError, None),
        ({"resources": {"x": -1}}, ValueError, None),
        ({"resources": {"x": 1.5}}, ValueError, "whole numbers"),
        ({"object_store_memory": 10}, ValueError, None),
    ],
    ids=lambda v: str(v)[:50],
)
def test_wrong_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ray.init(**{**QUIET, **arguments})
    assert not ray.is_initialized()


def test_resources():
    ray.init(num_cpus=3, num_gpus=0, resources={"x": 2}, object_store_memory=200 * 1024 * 1024, **QUIET)
    total = ray.cluster_resources()
    assert (total["CPU"], total["x"]) == (3, 2)
    assert total["object_store_memory"] == 200 * 1024 * 1024


def test_store_size_as_a_float():
    ray.init(num_cpus=1, object_store_memory=100e6, **QUIET)
    assert ray.cluster_resources()["object_store_memory"] == 100_000_000
    assert ray.get(ray.put(bytes(10**6))) == bytes(10**6)


def test_memory_of_the_node():
    ray.init(num_cpus=1, _memory=123_000_000, **QUIET)
    assert ray.cluster_resources()["memory"] == 123_000_000


def test_port_of_metrics():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    ray.init(num_cpus=1, _metrics_export_port=port, **QUIET)
    (node,) = ray.nodes()
    assert node["MetricsExportPort"] == port


def test_temporary_directory():
    with tempfile.TemporaryDirectory(prefix="t") as directory:  # pytest's own are too long for the path of a socket
        context = ray.init(num_cpus=1, _temp_dir=directory, **QUIET)
        assert context["session_dir"].startswith(directory)
        ray.shutdown()


def test_temporary_directory_must_be_absolute():
    with pytest.raises(ValueError, match="absolute"):
        ray.init(num_cpus=1, _temp_dir="relative", **QUIET)


def test_job_config():
    config = submodule("job_config").JobConfig(ray_namespace="of the config", default_actor_lifetime="detached")
    ray.init(num_cpus=1, job_config=config, **QUIET)
    assert ray.get_runtime_context().namespace == "of the config"

    @ray.remote
    class Detached:
        def ping(self):
            return "alive"

    ray.get(Detached.options(name="d").remote().ping.remote())  # and its handle is gone
    assert ray.get(ray.get_actor("d").ping.remote(), timeout=60) == "alive"


def test_logging():
    """In processes of their own: what a session sets up stays."""
    show = "import logging; log = logging.getLogger(ray.__name__); print(log.level, len(log.handlers))"
    args = "num_cpus=1, include_dashboard=False, log_to_driver=False"
    plain = run("-c", script(f"ray.init({args}, logging_level='DEBUG', logging_format='FORMAT %(message)s')\n{show}"))
    assert plain.splitlines()[-1] == "10 1"
    untouched = run("-c", script(f"ray.init({args}, configure_logging=False, logging_level='DEBUG')\n{show}"))
    assert not untouched.splitlines()[-1].startswith("10 ")


def test_default_resources():
    ray.init(**QUIET)
    assert ray.cluster_resources()["CPU"] == len(os.sched_getaffinity(0))


def test_no_cpus():
    ray.init(num_cpus=0, **QUIET)
    assert ray.cluster_resources().get("CPU", 0) == 0

    @ray.remote(num_cpus=0)
    def f():
        return "ran"

    assert ray.get(f.remote()) == "ran"
    assert ray.get(ray.put(1)) == 1


def test_namespace():
    ray.init(num_cpus=1, namespace="mine", **QUIET)
    assert ray.get_runtime_context().namespace == "mine"


def test_anonymous_namespace():
    ray.init(num_cpus=1, **QUIET)
    first = ray.get_runtime_context().namespace
    ray.shutdown()
    ray.init(num_cpus=1, **QUIET)
    assert first
    assert first != ray.get_runtime_context().namespace


def test_functions_and_classes_work_again_after_init():
    @ray.remote
    def f():
        return os.getpid()

    @ray.remote
    class A:
        def m(self):
            return "m"

    for _ in range(2):
        ray.init(num_cpus=1, **QUIET)
        assert ray.get(f.remote()) != os.getpid()
        assert ray.get(A.remote().m.remote()) == "m"
        ray.shutdown()


def test_handles_of_an_earlier_session():
    @ray.remote
    class A:
        def m(self):
            return 1

    ray.init(num_cpus=1, **QUIET)
    actor, ref = A.remote(), ray.put(1)
    assert ray.get(actor.m.remote()) == 1
    ray.shutdown()
    ray.init(num_cpus=1, **QUIET)
    with pytest.raises(exceptions.ActorHandleNotFoundError):
        ray.kill(actor)
    with pytest.raises(Exception, match=r".+"):
        ray.get(actor.m.remote(), timeout=60)
    with pytest.raises((ValueError, exceptions.RayError)):
        ray.get(ref, timeout=60)


def test_shutdown_ends_every_process():
    ray.init(num_cpus=2, **QUIET)

    @ray.remote
    def pid():
        return os.getpid(), os.getppid()

    @ray.remote
    class A:
        def child(self):
            self.process = subprocess.Popen(["sleep", "1000"])
            return os.getpid(), self.process.pid

    a = A.remote()
    pids = {*ray.get(pid.remote()), *ray.get(a.child.remote())} - {os.getpid()}
    ray.shutdown()
    eventually(lambda: not any(map(alive, pids)), "all processes are gone")


# --- automatic init ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "use",
    ["ray.put(1)", "f.remote()", "A.remote()", "ray.get_runtime_context()", "ray.wait([])"],
)
def test_first_use_starts_a_cluster(use):
    run(
        "-c",
        script(f"""
            @ray.remote
            def f():
                return 1

            @ray.remote
            class A:
                pass

            assert not ray.is_initialized()
            {use}
            assert ray.is_initialized()
        """),
    )


def test_automatic_init_switched_off():
    output = run(
        "-c",
        script("""
            try:
                ray.put(1)
            except Exception as error:
                print("refused:", type(error).__name__)
            assert not ray.is_initialized()
        """),
        env={f"{PREFIX}_ENABLE_AUTO_CONNECT": "0"},
    )
    assert "refused: RaySystemError" in output or "refused: ShoalSystemError" in output


# --- other drivers -------------------------------------------------------------------------------------------------


@better_than_ray  # Ray raises the same, after minutes.
def test_wrong_address():
    output = run(
        "-c",
        script("""
            try:
                ray.init(address="127.0.0.1:1", **QUIET)
            except ConnectionError as error:
                print("refused:", type(error).__name__)
        """),
    )
    assert "refused:" in output


def test_no_cluster_to_be_found():
    # Other programs on this machine may have clusters, and leave word of them below the usual directory. The path of
    # tmp_path would be too long for sockets.
    with tempfile.TemporaryDirectory(prefix="t") as directory:
        output = run(
            "-c",
            script("""
                try:
                    ray.init(address="auto", **QUIET)
                except ConnectionError:
                    print("refused")
            """),
            env={f"{PREFIX}_TMPDIR": directory},
        )
    assert "refused" in output


def test_second_driver_joins():
    context = ray.init(num_cpus=2, namespace="shared", **QUIET)

    @ray.remote
    class Cell:
        def __init__(self):
            self.value = None

        def set(self, value):
            self.value = value

        def get(self):
            return self.value

    cell = Cell.options(name="cell").remote()
    ray.get(cell.get.remote())
    address = context.address_info["address"]
    run(
        "-c",
        script(f"""
            ray.init(address={address!r}, namespace="shared", **QUIET)

            @ray.remote
            def f():
                return "from the second driver"

            ray.get(ray.get_actor("cell").set.remote(ray.get(f.remote())))

            @ray.remote
            class D:
                def m(self):
                    return 1

            D.options(name="left-behind", lifetime="detached").remote()
            assert ray.get(ray.get_actor("left-behind").m.remote()) == 1
        """),
    )
    assert ray.get(cell.get.remote()) == "from the second driver"
    assert ray.get(ray.get_actor("left-behind").m.remote()) == 1


# --- clean ends ------------------------------------------------------------------------------------------------------


PRINTS_PIDS = """
    import os, sys, time, subprocess
    ray.init(num_cpus=2, **QUIET)

    @ray.remote
    class A:
        def pids(self):
            self.child = subprocess.Popen(["sleep", "1000"])
            return [os.getpid(), os.getppid(), self.child.pid]

    @ray.remote
    def f():
        return os.getpid()

    a = A.remote()
    print("PIDS", *ray.get(a.pids.remote()), ray.get(f.remote()), flush=True)
"""


def pids_of(output):
    [line] = [line for line in output.splitlines() if line.startswith("PIDS ")]
    return [int(pid) for pid in line.split()[1:]]


@pytest.mark.parametrize(
    ("end", "status"),
    [("pass", 0), ("sys.exit(3)", 3), ("raise ValueError('the end')", 1), ("os._exit(4)", 4)],
)
def test_nothing_is_left_when_the_driver_ends(end, status):
    output = run("-c", script(PRINTS_PIDS) + f"\n{end}\n", status=status)
    pids = pids_of(output)
    eventually(lambda: not any(map(alive, pids)), "all processes are gone")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda s: s.name)
def test_nothing_is_left_when_the_driver_is_killed(how):
    code = script(PRINTS_PIDS) + "\ntime.sleep(1000)\n"
    driver = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = next(line for line in driver.stdout if line.startswith("PIDS "))
        pids = pids_of(line)
        driver.send_signal(how)
        driver.communicate(timeout=60)
    finally:
        driver.kill()
    assert driver.returncode != 0
    eventually(lambda: not any(map(alive, pids)), "all processes are gone")


def test_many_sessions_one_after_the_other():
    @ray.remote
    def f(i):
        return i

    for i in range(3 if IS_RAY else 8):
        ray.init(num_cpus=1, **QUIET)
        assert ray.get(f.remote(i)) == i
        ray.shutdown()


def test_module_has_a_version():
    assert ray.__version__.count(".") >= 1
    assert ray.__name__ == MODULE
