"""The example programs on the deployment."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.examples import AUTOML, EXAMPLES, OUTPUTS, check_automl, check_output
from support.stack import Stack


@pytest.mark.parametrize("example", OUTPUTS)
def test_a_driver_inside_the_network(stack: Stack, example: str) -> None:
    check_output(example, stack.drive("python", example))


@pytest.mark.parametrize("example", OUTPUTS)
def test_a_driver_outside(stack: Stack, example: str) -> None:
    check_output(example, stack.drive_from_outside(EXAMPLES / example))


def test_the_automl_service_from_outside(stack: Stack, tmp_path: Path) -> None:
    text = stack.drive_from_outside(*AUTOML, directory=tmp_path)
    assert "on 6 CPUs" in text
    check_automl(text, tmp_path)


def test_a_wrong_token_is_refused_outside(stack: Stack) -> None:
    program = f"""
import shoal
try:
    shoal.init("shoal://127.0.0.1:{stack.gateway_port}")
except shoal.exceptions.AuthenticationError as error:
    print("refused:", error)
"""
    assert "refused:" in stack.drive_from_outside("-c", program, SHOAL_AUTH_TOKEN="wrong" * 10)


def test_a_driver_reads_large_objects_in_place(stack: Stack) -> None:
    """The driver maps the arena of a raylet in another container: what a task returns is not copied."""
    program = """
import numpy as np, shoal
shoal.init()
@shoal.remote
def make():
    return np.arange(4_000_000)
array = shoal.get(make.remote())
maps = open("/proc/self/maps").read()
print("sum", int(array.sum()), "writeable", array.flags.writeable, "arena", "memfd:" in maps)
"""
    assert "sum 7999998000000 writeable False arena True" in stack.drive("python", "-c", program)


def test_a_submitted_job(stack: Stack) -> None:
    """Handed in from outside, by way of the dashboard; run on a raylet, as a driver of the deployment."""
    program = "import shoal; shoal.init(); print(len(shoal.nodes()), 'nodes')"
    text = stack.drive_from_outside(
        *("-m", "shoal.cli", "job", "submit", "--", "python", "-c", program),
        SHOAL_DASHBOARD_ADDRESS=f"http://127.0.0.1:{stack.dashboard_port}",
    )
    assert "3 nodes" in text
