"""Users' programs as processes of their own, which tests interrupt, kill and question."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from support.processes import PATIENCE_S

_PREAMBLE = """
import json, os, signal, subprocess, sys, threading, time
import shoal as ray

def report(**facts):
    print("REPORT " + json.dumps(facts), flush=True)

def command():
    return sys.stdin.readline().strip()
"""


class Driver:
    """Runs ``code`` after ``import shoal as ray``. It may ``report(name=value)`` and wait for a ``command()``."""

    def __init__(
        self,
        code: str,
        *arguments: str,
        env: dict[str, str] | None = None,
        python: Sequence[str] = (sys.executable,),
    ) -> None:
        self.process = subprocess.Popen(
            [*python, "-c", _PREAMBLE + textwrap.dedent(code), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **(env or {})},
        )
        self.pid = self.process.pid
        self.output: list[str] = []

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()

    def report(self) -> dict[str, Any]:
        """The next report; what is printed between goes to ``output``."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("REPORT "):
                facts: dict[str, Any] = json.loads(line.removeprefix("REPORT "))
                return facts
            self.output.append(line)
        raise AssertionError("the driver ended without a report:\n" + "".join(self.output))

    def line(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def tell(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def wait(self) -> int:
        """Its exit code, the rest of its output goes to ``output``."""
        # Descendants hold no end of this pipe: if one did, this would not return.
        rest, _ = self.process.communicate(timeout=PATIENCE_S)
        self.output.append(rest)
        return self.process.returncode

    @property
    def text(self) -> str:
        return "".join(self.output)
