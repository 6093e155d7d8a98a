"""Every example runs unchanged outside of the cluster, through one port, on nodes that do not have its files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.clusters import MIB, ProcessCluster
from support.examples import AUTOML, EXAMPLES, OUTPUTS, check_automl, check_output
from support.processes import PATIENCE_S
from support.servers import free_port


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """The gateway's node runs nothing itself, as in the deployment."""
    port = free_port()
    with ProcessCluster() as cluster:
        cluster.add_node(cpus=0, store_bytes=128 * MIB, gateway_port=port)
        for _ in range(2):
            cluster.add_node(cpus=2, store_bytes=128 * MIB)
        yield {
            **os.environ,
            "SHOAL_ADDRESS": f"shoal://localhost:{port}",
            "SHOAL_AUTH_TOKEN": cluster.token,
            "PYTHONWARNINGS": "error",
        }


def run(environment: dict[str, str], directory: Path, *command: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, *command], env=environment, cwd=directory, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("example", OUTPUTS)
def test_example(example: str, environment: dict[str, str], tmp_path: Path) -> None:
    check_output(example, run(environment, tmp_path, EXAMPLES / example))


def test_automl_service(environment: dict[str, str], tmp_path: Path) -> None:
    check_automl(run(environment, tmp_path, *AUTOML), tmp_path)
