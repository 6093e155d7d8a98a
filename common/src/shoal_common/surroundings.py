"""What a process takes over from the one that started it, and what it must not.

A program that uses Shoal may run anywhere: in a directory full of strangers' files, out of cron, below a shell that
ignores signals. Its children, which are processes of ours, and what we open in it must not depend on that.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
from collections.abc import Sequence

#: Ignored signals and blocked ones are inherited; these must reach us, and the users' code that runs in our processes.
#: (With SIGCHLD ignored the kernel reaps all children, and nobody learns how they ended.)
_OWN_SIGNALS = (signal.SIGCHLD, signal.SIGTERM)


def interpreter(module: str, *arguments: str, python: Sequence[str] = (sys.executable,)) -> list[str]:
    """The command that runs a module of ours in this process's interpreter, or in another ``python``.

    Never with the current directory on ``sys.path``, as ``python -m`` would have it: a ``random.py`` there would be
    imported in place of the standard library's, whoever wrote it. By a flag and not by PYTHONSAFEPATH: scripts that
    users' tasks start shall find what lies beside them. What this process was told not to look at (``-E``, ``-s``, or
    both with ``-I``), its children do not look at either.
    """
    flags = ["-P"]
    if sys.flags.ignore_environment:
        flags.append("-E")
    if sys.flags.no_user_site:
        flags.append("-s")
    return [*python, *flags, "-m", module, *arguments]


def environment() -> dict[str, str]:
    """This process's environment, for a child of ours: what PYTHONPATH names relative to the current directory is
    named in full, and an empty entry, which is the current directory and mostly an accident of a shell, is left out.
    """
    inherited = dict(os.environ)
    found = []
    for path in inherited.pop("PYTHONPATH", "").split(os.pathsep):
        with contextlib.suppress(FileNotFoundError):  # the current directory has been deleted
            if path:
                found.append(os.path.abspath(path))
    return {**inherited, "PYTHONPATH": os.pathsep.join(found)} if found else inherited


def take_own_signals() -> None:
    """For the start of a process of ours, on its main thread."""
    for number in _OWN_SIGNALS:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def occupy_standard_streams() -> None:
    """Standard descriptors that are closed, as daemons have them, become /dev/null.

    Else the next thing that is opened gets their number, and whatever prints, or lays a child's stream over them, hits
    it.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


def raise_open_files() -> bool:
    """May open as many files as its user lets it; whether that is more than before.

    A shell gives a process 1,024, which a few hundred workers or peers use up.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return False
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return True


def readable(text: str) -> str:
    """Without what is not Unicode: bytes of file names and arguments that are not UTF-8 become escapes."""
    return text.encode(errors="backslashreplace").decode()
