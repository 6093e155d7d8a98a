"""However a driver ends: its processes, their children, its files and its shared memory are gone in ten seconds."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from support.drivers import Driver
from support.processes import all_gone, arenas_of, descendants, eventually, head_of, holders_of, stopped

import shoal

BUSY = """
import numpy as np

ray.init(num_cpus=4, object_store_memory=80 << 20, logging_level="ERROR", log_to_driver=False)

def children():
    stubborn = ["sh", "-c", "trap '' INT TERM HUP; while true; do sleep 1000; done"]
    return [
        subprocess.Popen(["sleep", "1000"]),
        subprocess.Popen(["sleep", "1000"], start_new_session=True),
        subprocess.Popen(stubborn),
        subprocess.Popen(stubborn, start_new_session=True),
    ]

@ray.remote(num_cpus=0)
class Registry:
    def __init__(self):
        self.pids = []

    def add(self, *pids):
        self.pids += pids

    def all(self):
        return self.pids

registry = Registry.remote()

@ray.remote
def busy():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    mine = children()
    ray.get(registry.add.remote(os.getpid(), *[child.pid for child in mine]))
    while True:
        time.sleep(1000)

@ray.remote
def waits_for_another():
    ray.get(registry.add.remote(os.getpid()))
    ray.get(busy.remote())

@ray.remote(num_cpus=0)
class Parent:
    def __init__(self):
        self.children = children()

    def pids(self):
        return [os.getpid(), *[child.pid for child in self.children]]

    def make_another(self):
        self.other = Parent.remote()
        return ray.get(self.other.pids.remote())

    def stay(self):
        signal.pause() if threading.current_thread() is threading.main_thread() else time.sleep(1000)

parents = [Parent.remote(), Parent.options(max_restarts=-1).remote()]
parents.append(Parent.options(name="kept", lifetime="detached").remote())
pids = sum(ray.get([parent.pids.remote() for parent in parents]), [])
pids += ray.get(parents[0].make_another.remote())
stays = [parent.stay.remote() for parent in parents]
tasks = [busy.remote(), waits_for_another.remote()]
# More than the store holds, so that some of them lie in files; and one that is being read.
objects = [ray.put(np.full(10 << 17, number)) for number in range(12)]
view = ray.get(objects[0])
while len(ray.get(registry.all.remote())) < 11:
    time.sleep(0.01)
pids += ray.get(registry.all.remote())
report(pids=pids, session=ray.init(ignore_reinit_error=True).address_info["session_dir"])
"""

ENDS = {
    "SIGKILL": signal.SIGKILL,
    "SIGINT": signal.SIGINT,
    "SIGTERM": signal.SIGTERM,
    "SIGSEGV": signal.SIGSEGV,
    "end of the program": "",
    "exception": "raise ValueError('the end')",
    "exception in a thread beside": "threading.Thread(target=lambda: 1 / 0).start()",
    "sys.exit": "sys.exit(3)",
    "os._exit": "os._exit(4)",
    "os.abort": "os.abort()",
    "shutdown": "ray.shutdown()",
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_nothing_is_left(end):
    how = f"exec({end!r})" if isinstance(end, str) else "ray.get(tasks)"
    with Driver(BUSY + f"\ncommand()\n{how}\n") as driver:
        facts = driver.report()
        pids = set(facts["pids"]) | descendants(driver.pid)
        [arena] = arenas_of(driver.pid)
        session = Path(facts["session"])
        assert len(pids) >= 30
        assert any((session / "spill").rglob("*")), "nothing was spilled"
        driver.tell("end")
        if not isinstance(end, str):
            driver.process.send_signal(end)
        driver.wait()
        all_gone(pids)
        eventually(lambda: not session.exists(), f"{session} is removed")
        assert holders_of(arena) == []


def test_stopped_workers_go_too():
    with Driver(BUSY + "\ncommand()\n") as driver:
        facts = driver.report()
        pids = set(facts["pids"]) | descendants(driver.pid)
        for pid in facts["pids"]:
            os.kill(pid, signal.SIGSTOP)
        eventually(lambda: all(map(stopped, facts["pids"])), "they are stopped")
        driver.process.kill()
        driver.wait()
        all_gone(pids)
        eventually(lambda: not Path(facts["session"]).exists(), "the session's directory is removed")


def test_driver_and_head_killed_together():
    with Driver(BUSY + "\ncommand()\n") as driver:
        facts = driver.report()
        pids = set(facts["pids"]) | descendants(driver.pid)
        [arena] = arenas_of(driver.pid)
        for pid in (driver.pid, head_of(driver.pid)):
            os.kill(pid, signal.SIGKILL)
        driver.wait()
        all_gone(pids)
        assert holders_of(arena) == []
    # Nobody was left to remove the files: the next session does.
    session = Path(facts["session"])
    assert session.exists()
    with shoal.init(num_cpus=1, logging_level="ERROR"):
        assert not session.exists()


def test_driver_killed_while_it_starts():
    code = """
        import subprocess as module
        start = module.Popen
        def reporting(*args, **kwargs):
            process = start(*args, **kwargs)
            report(head=process.pid)
            return process
        module.Popen = reporting
        ray.init(num_cpus=1)
    """
    with Driver(code) as driver:
        head = driver.report()["head"]
        driver.process.kill()
        driver.wait()
        all_gone([head])


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=lambda s: s.name)
def test_second_driver_dies_alone(how, no_cluster):
    """What a driver that joined has started ends with it; the cluster and the first driver's work go on."""
    context = shoal.init(num_cpus=4, logging_level="ERROR", log_to_driver=False)

    @shoal.remote
    class Counter:
        def __init__(self):
            self.n = 0

        def add(self):
            self.n += 1
            return self.n

    counter = Counter.remote()
    kept = shoal.put(b"x" * 1_000_000)
    assert shoal.get(counter.add.remote()) == 1
    joining = BUSY.replace(
        "num_cpus=4, object_store_memory=80 << 20", f"address={context.address_info['address']!r}"
    ).replace('name="kept", lifetime="detached"', "")
    with Driver(joining + "\nray.get(tasks)\n") as driver:
        pids = driver.report()["pids"]
        driver.process.send_signal(how)
        driver.wait()
        all_gone(pids)
    assert shoal.get(counter.add.remote()) == 2
    assert len(shoal.get(kept)) == 1_000_000
    eventually(lambda: shoal.available_resources().get("CPU") == 4, "the CPUs of the dead driver are free")
