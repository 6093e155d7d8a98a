from __future__ import annotations

import os
import subprocess
import sys

import pytest

from shoal_common.surroundings import environment, interpreter, readable


def run(code: str, *flags: str) -> str:
    """What the code prints in an interpreter of its own."""
    program = f"import os, signal, sys\nfrom shoal_common import surroundings\n{code}"
    done = subprocess.run([sys.executable, *flags, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("flags", "handed_on"),
    [((), ["-P"]), (("-E",), ["-P", "-E"]), (("-s",), ["-P", "-s"]), (("-I",), ["-P", "-E", "-s"])],
)
def test_children_look_for_modules_where_their_parent_was_told_to(flags: tuple[str, ...], handed_on: list[str]) -> None:
    said = run("print(*surroundings.interpreter('a.b', '--c=1')[1:])", *flags)
    assert said == " ".join([*handed_on, "-m", "a.b", "--c=1"])
    assert interpreter("a")[0] == sys.executable


@pytest.mark.parametrize(
    ("given", "handed_on"),
    [(None, None), ("", None), ("::", None), ("/a:/b", "/a:/b"), (":/a:lib::", "/a:{here}/lib"), (".", "{here}")],
)
def test_no_path_of_modules_depends_on_the_current_directory(
    given: str | None, handed_on: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if given is not None:
        monkeypatch.setenv("PYTHONPATH", given)
    expected = handed_on.format(here=os.getcwd()) if handed_on is not None else None
    assert environment().get("PYTHONPATH") == expected


def test_signals_that_the_parent_ignored_or_blocked_are_ours() -> None:
    code = """
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
if len(sys.argv) == 1:
    os.execv(sys.executable, [sys.executable, "-c", PROGRAM, "again"])
"""
    inherited = "import signal, os; from shoal_common import surroundings; surroundings.take_own_signals(); "
    look = "print(signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL, signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    assert run(code.replace("PROGRAM", repr(inherited + look))) == "True set()"


def test_a_handler_of_the_program_stays() -> None:
    code = "signal.signal(signal.SIGTERM, print); surroundings.take_own_signals(); "
    assert run(code + "sys.stdout.write(str(signal.getsignal(signal.SIGTERM) is print))") == "True"


def test_closed_standard_streams_are_taken() -> None:
    code = "os.close(0); os.close(2); surroundings.occupy_standard_streams(); fd = os.open('/', 0); "
    assert run(code + "print(os.readlink('/proc/self/fd/0'), os.readlink('/proc/self/fd/2'), fd > 2)") == (
        "/dev/null /dev/null True"
    )


def test_bytes_that_are_no_text_are_readable() -> None:
    name = os.fsdecode(b"photo-\xff.jpg")
    assert readable(name) == "photo-\\udcff.jpg"
    assert readable("größe") == "größe"
