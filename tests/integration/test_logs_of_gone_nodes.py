"""What was printed on a node that has left the cluster is read out of the cluster's blobs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.http import ask
from support.processes import eventually

import shoal
from shoal import cli
from shoal.cluster_utils import Cluster


@pytest.fixture
def two_nodes() -> Iterator[Cluster]:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        yield cluster
    finally:
        shoal.shutdown()
        cluster.shutdown()


@shoal.remote
def say(text: str) -> str:
    print(text)
    print("wrong:", text, file=sys.stderr)
    return shoal.get_runtime_context().get_task_id()


def test_it_is_found_by_its_task_and_by_its_file(
    two_nodes: Cluster, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    node = two_nodes.add_node(num_cpus=1, resources={"leaves": 1})
    shoal.init(two_nodes.address, log_to_driver=False)
    task = shoal.get(say.options(resources={"leaves": 1}).remote("last words"))
    node_id = node.node_id.hex() if isinstance(node.node_id, bytes) else node.node_id
    address = f"--address={two_nodes.gcs_address}"
    two_nodes.remove_node(node)

    def lines(*arguments: str) -> list[str]:
        capsys.readouterr()
        assert cli.main(["logs", address, *arguments]) == 0, capsys.readouterr().err
        return capsys.readouterr().out.splitlines()

    assert lines("--task", task) == ["last words"]
    listed = "\n".join(lines())
    assert f"Node {node_id} at 127.0.0.1, which is gone:" in listed
    (line,) = map(json.loads, lines("--task", task, "--err", "--json"))
    assert (line["line"], line["node_id"]) == ("wrong: last words", node_id)

    log = tmp_path / "dashboard"
    with open(log, "w") as output:
        command = ["-m", "shoal_dashboard", "--port=0", f"--gcs-address={two_nodes.gcs_address}"]
        dashboard = subprocess.Popen([sys.executable, *command], stderr=output)
    try:
        eventually(lambda: "service_started" in log.read_text(), "it listens")
        url = "http://" + log.read_text().partition('"address": "')[2].partition('"')[0]
        token = os.environ["SHOAL_AUTH_TOKEN"]
        answer = ask(f"{url}/api/v0/logs/file", token, task_id=task, attempt_number=0)
        assert (answer.status, answer.text) == (200, "last words\n")
        names = ask(f"{url}/api/v0/logs", token, node_id=node_id).json["data"]["result"]["worker_out"]
        text = "".join(ask(f"{url}/view/logs/{node_id}/{name}", token).text for name in names)
        assert "last words" in text
        text = ask(f"{url}/view/logs/search", token, word="LAST words", node_id=node_id).text
        assert "<mark>last words</mark>" in text and f"{node_id}, which is gone" in text, text
        assert "Of nodes that are gone" in ask(f"{url}/view/logs", token).text
    finally:
        dashboard.terminate()
        assert dashboard.wait() == 0
