"""The servers of the integration tests in containers, as on a machine that has Docker and not the servers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import docker
import pytest
from support.processes import eventually
from support.server_hosts import WHERE
from support.servers import EtcdServer, MinioServer, NatsServer, Server, running
from support.stack import IMAGES

MAKE: dict[str, Callable[[Path], Server]] = {
    "etcd": EtcdServer,
    "nats": lambda directory: NatsServer(directory, "a token"),
    "minio": MinioServer,
}


@pytest.fixture
def in_containers(client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch) -> docker.DockerClient:
    """With the images of docker/local-images.env."""
    monkeypatch.setenv(WHERE, "containers")
    for line in IMAGES.read_text().splitlines():
        if not line.startswith("#"):
            monkeypatch.setenv(*line.split("="))
    return client


def ours(client: docker.DockerClient) -> list[str]:
    return [found.id for found in client.containers.list(all=True, filters={"label": f"shoal.tests.pid={os.getpid()}"})]


@pytest.mark.parametrize("name", MAKE)
def test_a_server_runs_hangs_and_dies_in_a_container(
    in_containers: docker.DockerClient, name: str, tmp_path: Path
) -> None:
    server = MAKE[name](tmp_path / "server")
    with running(server):
        assert len(ours(in_containers)) == 1
        server.stop()
        assert not server.ready()
        server.resume()
        eventually(server.ready, f"{name} answers again")
        server.kill()
        assert not server.ready()
        server.start()
    assert not ours(in_containers)


def test_what_is_written_outlives_a_kill_of_the_container(in_containers: docker.DockerClient, tmp_path: Path) -> None:
    server = EtcdServer(tmp_path / "server")
    with running(server):
        server.put("key", b"value")
        server.kill()
        server.start()
        assert server.value("key") == b"value"


def test_without_the_server_and_its_image_both_ways_to_it_are_named(
    in_containers: docker.DockerClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("SHOAL_NATS_IMAGE", "localhost:9/no-such-image")
    with pytest.raises(pytest.skip.Exception, match=r"apt-get install nats.*no-such-image.*images-local"):
        NatsServer(tmp_path, "a token")
    monkeypatch.setenv("CI", "1")
    with pytest.raises(pytest.fail.Exception, match="nats-server is needed"):
        NatsServer(tmp_path, "a token")
