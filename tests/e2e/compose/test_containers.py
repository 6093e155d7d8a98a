"""What the containers are and are not allowed: looked up in the running deployment, not in compose.yaml."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from support.stack import Stack, health, service_of

MB = 1_000_000
#: A service with its libraries and, where programs run, those of the examples, over the base image.
MAX_SERVICE_BYTES = 200 * MB

#: Container → how many of them.
EXPECTED = {
    **dict.fromkeys(("etcd-1", "etcd-2", "nats", "minio", "gateway", "dashboard"), 1),
    **dict.fromkeys(("gcs", "scheduler", "objectstore"), 2),
    "raylet": 3,
}


def inside(container: Any, *command: str) -> tuple[int, str]:
    code, output = container.exec_run(list(command))
    return code, output.decode()


def test_everything_runs_and_is_healthy(stack: Stack) -> None:
    assert Counter(map(service_of, stack.running())) == EXPECTED
    assert {container.name: health(container) for container in stack.running()} == {
        container.name: "healthy" for container in stack.running()
    }


def test_the_secrets_were_made_once_and_their_maker_has_ended(stack: Stack) -> None:
    [setup] = stack.containers("setup")
    assert (setup.status, setup.attrs["State"]["ExitCode"]) == ("exited", 0)
    before = stack.read("gcs", "/run/shoal/token")
    setup.start()
    setup.wait(timeout=60)
    assert stack.read("gcs", "/run/shoal/token") == before
    assert len(before) == 64


def test_no_process_is_root_or_has_any_capability(stack: Stack) -> None:
    for container in stack.running():
        _, text = inside(container, "sh", "-c", "cat /proc/[0-9]*/status")
        for status in text.split("Name:\t")[1:]:
            name, *lines = status.splitlines()
            if name.startswith("runc"):
                continue  # Docker itself, on its way into the container for a health check
            facts = {line.partition(":")[0]: line.partition(":")[2].split() for line in lines}
            assert facts["Uid"] == facts["Gid"] == ["1000"] * 4, (container.name, name)
            assert facts["CapEff"] == facts["CapPrm"] == facts["CapBnd"] == ["0" * 16], (container.name, name)
            assert facts["NoNewPrivs"] == ["1"], (container.name, name)


def test_the_root_of_every_container_is_read_only(stack: Stack) -> None:
    for container in stack.running():
        assert container.attrs["HostConfig"]["ReadonlyRootfs"] is True
        code, text = inside(container, "touch", "/home/x", "/opt/x", "/x")
        assert code != 0 and text.count("Read-only file system") == 3, text
        assert not container.attrs["HostConfig"]["Privileged"]


def test_no_secret_is_in_an_inspection_or_a_log(stack: Stack) -> None:
    secrets = [
        stack.read("gcs", "/run/shoal/token"),
        stack.read("minio", "/run/shoal-minio/user"),
        stack.read("minio", "/run/shoal-minio/password"),
    ]
    assert all(len(secret) > 10 for secret in secrets)
    for container in stack.containers():
        image = stack.client.images.get(container.attrs["Image"])
        seen = json.dumps([container.attrs, image.attrs, image.history()]) + container.logs().decode(errors="replace")
        assert not any(secret in seen for secret in secrets), container.name


def test_programs_of_users_do_not_reach_etcd(stack: Stack) -> None:
    probe = "import socket, sys; socket.create_connection((sys.argv[1], 2379), timeout=2)"
    for shard in ("etcd-1", "etcd-2"):
        for host in (shard, stack.address(shard, "etcd")):
            assert inside(stack.running("raylet")[0], "python", "-c", probe, host)[0] != 0, f"a raylet reaches {host}"
        assert inside(stack.running("gcs")[0], "python", "-c", probe, shard)[0] == 0


def test_minio_refuses_whoever_has_no_credentials(stack: Stack) -> None:
    probe = "import urllib.request; urllib.request.urlopen('http://minio:9000/shoal?list-type=2', timeout=5)"
    code, text = inside(stack.running("raylet")[0], "python", "-c", probe)
    assert code != 0 and "403" in text, text


def test_nats_refuses_whoever_has_no_token(stack: Stack) -> None:
    probe = """
import socket
with socket.create_connection(("nats", 4222), timeout=5) as connection:
    connection.sendall(b'CONNECT {"verbose":true}\\r\\nSUB > 1\\r\\n')
    while data := connection.recv(4096):
        print(data.decode())
"""
    code, text = inside(stack.running("raylet")[0], "python", "-c", probe)
    assert code == 0 and "Authorization Violation" in text, text


def test_nothing_is_published_but_the_gateway_and_the_dashboard_to_this_machine(stack: Stack) -> None:
    bindings = [
        binding
        for container in stack.running()
        for published in container.attrs["NetworkSettings"]["Ports"].values()
        for binding in published or []
    ]
    assert {(binding["HostIp"], binding["HostPort"]) for binding in bindings} == {
        ("127.0.0.1", str(stack.gateway_port)),
        ("127.0.0.1", str(stack.dashboard_port)),
    }


@pytest.mark.parametrize("service", ["gcs", "scheduler", "objectstore", "raylet", "driver"])
def test_images_are_small(stack: Stack, service: str) -> None:
    base = stack.client.images.get("shoal-local/python:3.11").attrs["Size"]
    image = stack.client.images.get(f"shoal/{service}:0.1.0")
    over_base = image.attrs["Size"] - base
    assert 0 < over_base <= MAX_SERVICE_BYTES, f"{over_base / MB:.0f} MB"


@pytest.mark.parametrize("service", ["gcs", "scheduler", "objectstore", "raylet", "driver"])
def test_images_say_what_they_are(stack: Stack, service: str) -> None:
    labels = stack.client.images.get(f"shoal/{service}:0.1.0").labels
    assert labels["org.opencontainers.image.title"] == f"shoal-{service}"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.version"] == "0.1.0"


def test_an_image_has_only_its_own_service(stack: Stack) -> None:
    for service in ("gcs", "scheduler", "objectstore", "raylet"):
        _, text = inside(stack.running(service)[0], "sh", "-c", "ls /opt/shoal/lib/python3*/site-packages")
        packages = {name for name in text.split() if name.startswith("shoal") and not name.endswith("-info")}
        allowed = {"shoal_common", "shoal_proto", f"shoal_{service}"} | ({"shoal"} if service == "raylet" else set())
        assert packages == allowed
