"""Backup and restore as docs/metadata.md says."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support.deployed import DeployedCluster

import shoal


def etcdctl(*arguments: str) -> None:
    subprocess.run(["etcdctl", *arguments], check=True, capture_output=True, env={**os.environ, "ETCDCTL_API": "3"})


def test_a_cluster_comes_back_from_its_backup(tmp_path: Path) -> None:
    if shutil.which("etcdctl") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("etcdctl is not installed: apt-get install etcd-client")

    @shoal.remote(num_cpus=0)
    class Keeper:
        def ping(self) -> str:
            return "pong"

    with DeployedCluster() as cluster:
        node = cluster.add_node(cpus=2)
        with cluster.connected():
            keeper = Keeper.options(name="keeper", lifetime="detached", namespace="space", max_restarts=-1).remote()
            assert shoal.get(keeper.ping.remote()) == "pong"
        for number, server in enumerate(cluster.etcd):
            etcdctl("--endpoints", server.address, "snapshot", "save", str(tmp_path / f"shard{number}.db"))

        node.end()
        for replica in cluster.replicas:
            replica.end()
        for number, server in enumerate(cluster.etcd):
            server.kill()
            server.forget()
            data = str(server.directory / "data")
            etcdctl("snapshot", "restore", str(tmp_path / f"shard{number}.db"), "--data-dir", data)
            server.start()
        cluster.replicas[0] = cluster.start_gcs(0)
        cluster.leads(0)
        cluster.add_node(cpus=2)
        with cluster.connected():
            # Its node is gone, so it is started again on the new one.
            keeper = shoal.get_actor("keeper", namespace="space")
            assert shoal.get(keeper.ping.options(max_task_retries=-1).remote()) == "pong"
