"""What type checkers make of programs on Shoal: ``samples/`` says what they know, and what they must refuse."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

SAMPLES = Path(__file__).parent / "samples"
#: Of mypy, which drops what a class decorator returns.
NOT_FOR_MYPY = {"decorated_class.py"}


def expected(samples: Iterable[Path]) -> set[tuple[str, int]]:
    """File and line of what is to be refused."""
    return {
        (sample.name, number)
        for sample in samples
        for number, line in enumerate(sample.read_text().splitlines(), 1)
        if line.endswith("# refused")
    }


def run(*command: str) -> str:
    done = subprocess.run([sys.executable, "-m", *command], cwd=SAMPLES, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr + done.stdout
    return done.stdout


def test_mypy() -> None:
    samples = [sample for sample in sorted(SAMPLES.glob("*.py")) if sample.name not in NOT_FOR_MYPY]
    output = run("mypy", "--strict", "--config-file=", "--no-error-summary", *(sample.name for sample in samples))
    found = {(match[1], int(match[2])) for match in re.finditer(r"^(\w+\.py):(\d+): error", output, re.MULTILINE)}
    assert found == expected(samples), output


def test_pyright() -> None:
    samples = sorted(SAMPLES.glob("*.py"))
    output = run("pyright", "--pythonpath", sys.executable, *(sample.name for sample in samples))
    found = {(match[1], int(match[2])) for match in re.finditer(r"(\w+\.py):(\d+):\d+ - error", output)}
    assert found == expected(samples), output
