"""What the containers are and are not allowed: looked up in the running deployment, not in compose.yaml."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from support.stack import Stack, health, service_of

MB = 1_000_000
#: A service with its libraries, over the base image.
MAX_SERVICE_BYTES = 200 * MB

#: Container → how many of them.
EXPECTED = {"etcd-1": 1, "etcd-2": 1, "nats": 1, "minio": 1, "gcs": 1, "scheduler": 2, "objectstore": 2, "raylet": 3}


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
    setup.wait(timeout=30)
    assert stack.read("gcs", "/run/shoal/token") == before
    assert len(before) == 64


def test_no_process_is_root_or_has_any_capability(stack: Stack) -> None:
    for container in stack.running():
        # The init is process 1, what it runs is after it; all of them are looked at.
        _, text = inside(container, "sh", "-c", "cat /proc/[0-9]*/status")
        lines = [line.split() for line in text.splitlines()]
        assert {tuple(line[1:]) for line in lines if line[:1] == ["Uid:"]} == {("1000",) * 4}, container.name
        assert {line[1] for line in lines if line[:1] in (["CapEff:"], ["CapPrm:"])} == {"0" * 16}, container.name
        assert {line[1] for line in lines if line[:1] == ["NoNewPrivs:"]} == {"1"}, container.name


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


def test_programs_of_users_do_not_reach_the_stores(stack: Stack) -> None:
    probe = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2)"
    raylet, gcs, objectstore = (stack.running(service)[0] for service in ("raylet", "gcs", "objectstore"))
    for host, port in (("etcd-1", 2379), ("etcd-2", 2379), ("minio", 9000)):
        networks = stack.running(host)[0].attrs["NetworkSettings"]["Networks"].values()
        for name in (host, *(network["IPAddress"] for network in networks)):
            assert inside(raylet, "python", "-c", probe, name, str(port))[0] != 0, f"a raylet reaches {name}"
        user = gcs if host.startswith("etcd") else objectstore
        assert inside(user, "python", "-c", probe, host, str(port))[0] == 0


def test_nothing_is_published_but_to_this_machine(stack: Stack) -> None:
    bindings = [
        binding
        for container in stack.running()
        for published in container.attrs["NetworkSettings"]["Ports"].values()
        for binding in published or []
    ]
    assert all(binding["HostIp"] == "127.0.0.1" for binding in bindings)


@pytest.mark.parametrize("service", ["gcs", "scheduler", "objectstore", "raylet", "driver"])
def test_images_are_small(stack: Stack, service: str) -> None:
    """Without the libraries of the users' programs, which are a layer of their own."""
    base = stack.client.images.get("shoal-local/python:3.11").attrs["Size"]
    image = stack.client.images.get(f"shoal/{service}:0.1.0")
    ours = image.attrs["Size"] - base
    if service in ("raylet", "driver"):
        copied = [
            layer["Size"]
            for layer in image.history()
            if "COPY" in layer["CreatedBy"] and "/opt/shoal" in layer["CreatedBy"]
        ]
        _ours, programs, _needed = copied  # the latest first
        ours -= programs
    assert 0 < ours <= MAX_SERVICE_BYTES, f"{ours / MB:.0f} MB"


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
