"""Without descriptors, processes or disk: who needs them waits or is told so, the rest goes on, and the cluster is of
use when there are some again."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.drivers import Driver
from support.processes import head_of, template_of

#: What programs of these tests begin with.
_BEGIN = """
import numpy as np, resource

@ray.remote
class Actor:
    def ping(self):
        return os.getpid()

@ray.remote
def double(x):
    return 2 * x

def outcome(refs, timeout):
    "How many are there, and what the first that failed says."
    try:
        return [len(ray.get(refs, timeout=timeout)), ""]
    except Exception as error:
        return [0, f"{type(error).__name__}: {error}"]
"""


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_a_program_with_a_low_soft_limit_has_as_many_peers_as_the_hard_one_lets_it() -> None:
    code = """
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    ray.init(num_cpus=2, log_to_driver=False)
    actors = [Actor.remote() for _ in range(26)]
    report(answers=outcome([actor.ping.remote() for actor in actors], 90))

    @ray.remote
    def limit():
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    report(limit=ray.get(limit.remote()))
    """
    with Driver(_BEGIN + textwrap.dedent(code)) as driver:
        assert driver.report()["answers"] == [26, ""]
        assert driver.report()["limit"] == 40, "users' code has the program's limit"


def test_a_node_without_descriptors_says_so_and_goes_on_when_it_has_some() -> None:
    code = """
    ray.init(num_cpus=2, log_to_driver=False)
    first = Actor.remote()
    ray.get([first.ping.remote(), double.remote(1)])
    report(ready=True)
    command()
    actors = [Actor.options(num_cpus=0).remote() for _ in range(12)]
    report(busy=outcome([first.ping.remote()], 30))
    report(tasks=outcome([double.options(num_cpus=0.1).remote(i) for i in range(9)], 60))
    command()
    report(after=outcome([double.remote(i) for i in range(9)] + [Actor.remote().ping.remote()], 90))
    """
    with Driver(_BEGIN + textwrap.dedent(code)) as driver:
        driver.report()
        head = head_of(driver.pid)
        soft, hard = resource.prlimit(head, resource.RLIMIT_NOFILE)
        resource.prlimit(head, resource.RLIMIT_NOFILE, (descriptors(head) + 2, hard))
        driver.tell("go")
        assert driver.report()["busy"] == [1, ""], "what runs goes on"
        count, error = driver.report()["tasks"]
        assert count == 9 or "Too many open files" in error
        resource.prlimit(head, resource.RLIMIT_NOFILE, (soft, hard))
        driver.tell("go")
        assert driver.report()["after"] == [10, ""]


#: Limits of processes do not bind root.
_OTHER_USER = 54_321
_AS_OTHER_USER = (
    *("setpriv", f"--reuid={_OTHER_USER}", f"--regid={_OTHER_USER}", "--clear-groups"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "--"),
)


def threads_of(user: int) -> int:
    count = 0
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and process.stat().st_uid == user:
                count += len(os.listdir(process / "task"))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
    return count


@pytest.fixture
def home_of_other_user() -> Iterator[str]:
    if os.getuid() != 0 or subprocess.run([*_AS_OTHER_USER, "true"], check=False, capture_output=True).returncode:
        pytest.skip("needs the right to run programs as another user")
    with tempfile.TemporaryDirectory(prefix="shoal", dir="/tmp") as home:
        os.chown(home, _OTHER_USER, _OTHER_USER)
        yield home


def test_a_node_without_processes_says_so_and_goes_on_when_it_has_some(home_of_other_user: str) -> None:
    code = """
    ray.init(num_cpus=2, log_to_driver=False)
    first = Actor.remote()
    ray.get([first.ping.remote(), double.remote(1)])
    report(ready=True)
    before = resource.getrlimit(resource.RLIMIT_NPROC)
    limit, _, pids = command().partition(" ")
    for pid in map(int, pids.split()):
        resource.prlimit(pid, resource.RLIMIT_NPROC, (int(limit), before[1]))
    actors = [Actor.options(num_cpus=0).remote() for _ in range(6)]
    report(busy=outcome([first.ping.remote()], 30))
    report(tasks=outcome([double.options(num_cpus=0.1).remote(i) for i in range(9)], 60))
    for pid in map(int, pids.split()):
        resource.prlimit(pid, resource.RLIMIT_NPROC, before)
    report(after=outcome([double.remote(i) for i in range(9)] + [Actor.remote().ping.remote()], 90))
    """
    python = (*_AS_OTHER_USER, sys.executable)
    env = {"HOME": home_of_other_user, "SHOAL_TMPDIR": home_of_other_user}
    with Driver(_BEGIN + textwrap.dedent(code), env=env, python=python) as driver:
        driver.report()
        driver.tell(f"{threads_of(_OTHER_USER)} {template_of(driver.pid)} {head_of(driver.pid)}")
        assert driver.report()["busy"] == [1, ""], "what runs goes on"
        count, error = driver.report()["tasks"]
        assert count == 9 or "Resource temporarily unavailable" in error
        assert driver.report()["after"] == [10, ""]


@pytest.fixture
def small_disk() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="shoal", dir="/tmp") as path:
        mount = ["mount", "-t", "tmpfs", "-o", "size=48m", "shoal-test", path]
        if (mounted := subprocess.run(mount, capture_output=True, text=True, check=False)).returncode:
            pytest.skip(f"needs the right to mount a small file system: {mounted.stderr.strip()}")
        yield path
        subprocess.run(["umount", "--lazy", path], check=True)


def test_a_node_whose_whole_disk_is_full_runs_tasks_and_takes_actors_when_there_is_room(small_disk: str) -> None:
    """The GCS's database, spilled objects and logs all lie on it."""
    code = """
    ray.init(num_cpus=2, log_to_driver=False, object_store_memory=80 << 20)
    first = Actor.remote()
    ray.get([first.ping.remote(), double.remote(1)])
    with open(sys.argv[1] + "/fill", "wb", buffering=0) as fill:
        try:
            while fill.write(bytes(4096)):
                pass
        except OSError:
            pass
    report(busy=outcome([first.ping.remote()] + [double.remote(i) for i in range(9)], 30))
    try:
        refs = [ray.put(np.full(20 << 20, i, np.uint8)) for i in range(6)]
    except Exception as error:
        report(full=type(error).__name__)
    report(actor=outcome([Actor.remote().ping.remote()], 60))
    os.unlink(sys.argv[1] + "/fill")
    refs = None
    report(after=outcome([double.remote(i) for i in range(9)] + [Actor.remote().ping.remote()], 60))
    report(sizes=[ray.get(ray.put(np.full(30 << 20, i, np.uint8))).size >> 20 for i in range(3)])
    """
    with Driver(_BEGIN + textwrap.dedent(code), small_disk, env={"SHOAL_TMPDIR": small_disk}) as driver:
        assert driver.report()["busy"] == [10, ""], "what runs needs no disk"
        assert driver.report()["full"] in ("OutOfDiskError", "ObjectStoreFullError")
        count, error = driver.report()["actor"]
        assert count == 1 or "database or disk is full" in error
        assert driver.report()["after"] == [10, ""]
        assert driver.report()["sizes"] == [30, 30, 30]
        assert driver.wait() == 0
