"""Sessions one after the other leave nothing in the driver, and nothing beside it."""

from __future__ import annotations

import gc
import os
import tempfile
import threading
from pathlib import Path

import pytest
from support.processes import alive, all_gone, arenas_of, descendants, eventually

import shoal

pytestmark = pytest.mark.usefixtures("no_cluster")

#: What one session leaves, the fourth leaves too; a few more for what comes now and then.
CYCLES = 9


def use_everything():
    @shoal.remote
    def f(x):
        return len(x)

    @shoal.remote
    class A:
        async def m(self):
            return shoal.get_runtime_context().get_actor_id()

    array = shoal.put(b"x" * 2_000_000)
    assert shoal.get([f.remote(array) for _ in range(5)]) == [2_000_000] * 5
    actor = A.remote()
    assert shoal.get(actor.m.remote())
    # Left under way on purpose.
    f.remote(b"")
    actor.m.remote()


def state():
    gc.collect()
    fds = {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_open(fd)}
    threads = {thread.name for thread in threading.enumerate()}
    native = len(os.listdir("/proc/self/task"))
    return fds, threads, native


def _is_open(fd):
    try:
        os.readlink(f"/proc/self/fd/{fd}")
    except FileNotFoundError:
        return False
    return True


def test_many_sessions_leave_nothing():
    seen: set[int] = set()
    directories: list[Path] = []
    before = None
    for cycle in range(CYCLES):
        context = shoal.init(num_cpus=2, logging_level="ERROR")
        directories.append(Path(context.address_info["session_dir"]))
        use_everything()
        seen |= descendants(os.getpid())
        shoal.shutdown()
        assert not directories[-1].exists()
        if cycle == 2:  # what libraries make once and keep is there by now
            before = state()
    all_gone(seen)
    assert arenas_of(os.getpid()) == set()
    fds, threads, native = before
    eventually(lambda: len(os.listdir("/proc/self/task")) <= native, "the threads of the sessions are gone")
    fds_now, threads_now, _ = state()
    assert len(fds_now) <= len(fds), set(fds_now.values()) - set(fds.values())
    assert threads_now <= threads
    assert not list(Path(tempfile.gettempdir()).glob("shoal-*/session_*"))


def test_session_that_does_not_start_leaves_nothing(monkeypatch):
    """The head refuses: no file, no process, an error that says why, and no token in it."""
    before = descendants(os.getpid())
    monkeypatch.setenv("SHOAL_AUTH_TOKEN", "secret-of-the-test")
    # More shared memory than any machine can address, of which the driver knows nothing.
    monkeypatch.setattr("shoal._launch.node_resources._total_memory", lambda: 1 << 63)
    with pytest.raises(RuntimeError, match="did not start") as caught:
        shoal.init(num_cpus=1, object_store_memory=1 << 62, logging_level="ERROR")
    assert "secret-of-the-test" not in str(caught.value)
    assert not shoal.is_initialized()
    eventually(lambda: not any(map(alive, descendants(os.getpid()) - before)), "all that was started is gone")
    assert not list(Path(tempfile.gettempdir()).glob("shoal-*/session_*"))
    with shoal.init(num_cpus=1, logging_level="ERROR"):
        assert shoal.get(shoal.put(1)) == 1


def test_shutdown_while_other_threads_wait():
    """They get an error instead of waiting for ever."""
    shoal.init(num_cpus=1, logging_level="ERROR")

    @shoal.remote
    def forever():
        threading.Event().wait()

    errors: list[BaseException] = []
    ref = forever.remote()

    def wait():
        try:
            shoal.get(ref)
        except shoal.exceptions.ShoalError as error:
            errors.append(error)

    threads = [threading.Thread(target=wait) for _ in range(4)]
    for thread in threads:
        thread.start()
    eventually(lambda: shoal.available_resources().get("CPU", 0) == 0, "the task runs")
    shoal.shutdown()
    for thread in threads:
        thread.join(60)
    assert len(errors) == 4
