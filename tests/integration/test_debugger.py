"""Breakpoints in workers, and the terminals that come to them."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from support.processes import PATIENCE_S

import shoal
from shoal import _current
from shoal._owner.debugging import KEY, NAMESPACE, Breakpoint
from shoal.util import kv, rpdb


class Terminal:
    """This driver at a breakpoint."""

    def __init__(self, at: Breakpoint) -> None:
        self._at = at
        self._debugging = _current.current().debugging
        self._texts: queue.Queue[str | None] = queue.Queue()
        assert self._debugging.attach(at, self._texts.put, lambda gone: self._texts.put(None))

    def until(self, words: str) -> str:
        """All that comes, up to these words."""
        text = ""
        while words not in text:
            piece = self._texts.get(timeout=PATIENCE_S)
            assert piece is not None, text
            text += piece
        return text

    def say(self, line: str) -> None:
        self._debugging.type(self._at, line + "\n")

    def ask(self, line: str) -> str:
        self.say(line)
        return self.until("(Pdb) ")

    def end(self) -> str:
        """What comes before the end."""
        text = ""
        while (piece := self._texts.get(timeout=PATIENCE_S)) is not None:
            text += piece
        return text


def waiting(count: int = 1) -> list[Breakpoint]:
    """So many breakpoints, once there are."""
    while True:
        entry = kv.get(KEY, namespace=NAMESPACE)
        if len(found := _current.current().debugging.breakpoints()) == count:
            return found
        kv.watch(KEY, entry.version if entry else 0, timeout_s=PATIENCE_S, namespace=NAMESPACE)


@pytest.fixture
def calm(cluster: None) -> Iterator[None]:
    yield
    waiting(0)


def test_a_breakpoint_in_a_task(calm: None) -> None:
    @shoal.remote
    def double(x: int) -> int:
        breakpoint()
        twice = x * 2
        return twice

    ref = double.remote(21)
    [at] = waiting()
    assert at.task == "double"
    assert at.where.startswith(f"{__file__}:")
    assert not at.error
    terminal = Terminal(at)
    assert "twice = x * 2" in terminal.until("(Pdb) ")
    assert "21" in terminal.ask("p x")
    assert "return twice" in terminal.ask("n")
    terminal.ask("twice = 43")
    terminal.say("c")
    terminal.end()
    assert shoal.get(ref) == 43


def test_breakpoints_of_the_debugger_end_with_the_task(calm: None) -> None:
    @shoal.remote
    def count() -> tuple[int, bool]:
        before = sys.gettrace() is not None
        rpdb.set_trace(header="counting")
        total = 0
        for i in range(3):
            total += i
        return total, before

    for _ in range(2):  # in the same worker
        ref = count.remote()
        [at] = waiting()
        terminal = Terminal(at)
        assert "counting" in terminal.until("(Pdb) ")
        line = int(at.where.rpartition(":")[2]) + 3
        assert "Breakpoint" in terminal.ask(f"b {line}")
        assert "total += i" in terminal.ask("c")
        assert "total += i" in terminal.ask("c")
        assert "1" in terminal.ask("p i")
        terminal.say("c")
        assert "total += i" in terminal.until("(Pdb) ")
        terminal.say("c")
        terminal.end()
        assert shoal.get(ref) == (3, False)


def test_quit_ends_the_task_with_an_error(calm: None) -> None:
    @shoal.remote(max_retries=0)
    def stuck() -> None:
        breakpoint()
        raise AssertionError("not reached")

    ref = stuck.remote()
    [at] = waiting()
    terminal = Terminal(at)
    terminal.until("(Pdb) ")
    terminal.say("q")
    terminal.end()
    with pytest.raises(shoal.exceptions.TaskError, match="BdbQuit"):
        shoal.get(ref)


def test_in_an_actor_one_terminal_at_a_time(calm: None) -> None:
    @shoal.remote
    class Counter:
        def __init__(self) -> None:
            self.n = 1

        def add(self) -> int:
            breakpoint()
            self.n += 1
            return self.n

    counter = Counter.remote()
    ref = counter.add.remote()
    [at] = waiting()
    assert at.task == "Counter.add"
    first = Terminal(at)
    first.until("(Pdb) ")
    assert "1" in first.ask("p self.n")
    first.say("self.n = 10")
    first.until("(Pdb) ")
    first.say("c")
    first.end()
    assert shoal.get(ref) == 11
    assert "It is over." in Terminal(at).end()


POST_MORTEM = {"env_vars": {"SHOAL_DEBUG_POST_MORTEM": "1"}}


def test_after_an_error(calm: None) -> None:
    @shoal.remote(runtime_env=POST_MORTEM, max_retries=0)
    def divide(a: int, b: int) -> float:
        return a / b

    ref = divide.remote(1, 0)
    [at] = waiting()
    assert at.error == "ZeroDivisionError: division by zero"
    terminal = Terminal(at)
    assert "ZeroDivisionError" in terminal.until("(Pdb) ")
    assert "(1, 0)" in terminal.ask("p (a, b)")
    terminal.say("c")
    terminal.end()
    with pytest.raises(ZeroDivisionError):
        shoal.get(ref)


def test_a_worker_that_dies_ends_the_conversation(calm: None) -> None:
    @shoal.remote(max_retries=0)
    def paused() -> None:
        breakpoint()
        return None

    ref = paused.remote()
    [at] = waiting()
    terminal = Terminal(at)
    terminal.until("(Pdb) ")
    terminal.say("import os; os._exit(1)")
    assert "Its worker has ended." in terminal.end()
    with pytest.raises(shoal.exceptions.WorkerCrashedError):
        shoal.get(ref)
    with command() as listing:  # it finds nobody there
        said, _ = listing.communicate(timeout=PATIENCE_S)
        assert listing.returncode == 0
    assert "Its worker has ended." in said
    assert waiting(0) == []


def command(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """``shoal debug`` as a process of its own."""
    address = shoal.get_runtime_context().gcs_address
    return subprocess.Popen(
        [sys.executable, "-m", "shoal.cli", "debug", f"--address={address}", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ,
        **options,
    )


@shoal.remote
def pausing(x: int) -> int:
    breakpoint()
    x += 1
    return x


def test_the_command_attaches(calm: None) -> None:
    ref = pausing.remote(1)
    [at] = waiting()
    with command() as terminal:  # there is but one
        said, _ = terminal.communicate("x = 5\nc\n", timeout=PATIENCE_S)
        assert terminal.returncode == 0
    assert "x += 1" in said
    assert f"{at.id}" in said
    assert shoal.get(ref) == 6


@pytest.mark.parametrize("how", ["end of input", "killed"])
def test_a_terminal_that_goes_away_ends_the_conversation_and_the_task_goes_on(calm: None, how: str) -> None:
    refs = [pausing.remote(1), pausing.remote(2)]
    first, second = waiting(2)
    with command("--list") as listing:
        said, _ = listing.communicate(timeout=PATIENCE_S)
    assert first.id in said
    assert second.id in said
    with command(first.id[:6]) as terminal:
        assert terminal.stdin is not None and terminal.stdout is not None
        assert any("x += 1" in line for line in terminal.stdout)  # as soon as it comes
        if how == "killed":
            terminal.kill()
        else:
            terminal.stdin.close()
        terminal.wait(PATIENCE_S)
    waiting(1)
    again = Terminal(second)
    again.until("(Pdb) ")
    again.say("c")
    again.end()
    assert sorted(shoal.get(refs)) == [2, 3]
