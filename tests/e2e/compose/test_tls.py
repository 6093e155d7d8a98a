"""The deployment with compose.tls.yaml on top, as small as can be: it works, and not with who has no certificate."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from support.processes import eventually
from support.stack import ROOT, Stack, identity

from shoal_common.tls import VARIABLES

SQUARES = "squares: [0, 1, 4, 9, 16, 25, 36, 49, 64, 81]"

REFUSED = """
import shoal
try:
    shoal.init()
except ConnectionError as error:
    print("refused:", error)
"""
WITHOUT_TLS = f"This process spoke without TLS; where the cluster speaks it, set {', '.join(VARIABLES)}."

#: Puts more into a store of 256 MiB than it holds, and reads all back when told.
SPILLING = """
import numpy as np
ray.init()
refs = [ray.put(np.full(8_000_000, number)) for number in range(6)]
report(job=ray.get_runtime_context().get_job_id())
command()
report(values=[int(ray.get(ref)[-1]) for ref in refs])
command()
"""


def make_certificates(folder: Path) -> Path:
    subprocess.run([ROOT / "docker" / "make-certs", folder], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def secured(client: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    certificates = make_certificates(tmp_path_factory.mktemp("certificates"))
    with Stack(client, certificates.parent, certificates=certificates).deployed(
        gcs=1, scheduler=1, objectstore=1, raylet=1
    ) as stack:
        yield stack


def test_a_driver_inside_the_network(secured: Stack) -> None:
    assert SQUARES in secured.drive("python", "squares.py")


def test_a_driver_outside(secured: Stack) -> None:
    assert SQUARES in secured.drive_from_outside(ROOT / "examples" / "squares.py")


def test_the_gcs_refuses_a_driver_without_a_certificate_and_it_says_why(secured: Stack) -> None:
    unset = [word for variable in VARIABLES for word in ("--unset", variable)]
    text = secured.drive("env", *unset, "python", "-c", REFUSED)
    assert "refused: Shoal could not connect to a cluster at gcs:6381" in text and WITHOUT_TLS in text


def test_the_gateway_refuses_a_driver_without_a_certificate_and_it_says_why(secured: Stack) -> None:
    text = secured.drive_from_outside("-c", REFUSED, **dict.fromkeys(VARIABLES, ""))
    assert "refused: Shoal could not connect to a gateway" in text and WITHOUT_TLS in text


def test_the_gateway_refuses_a_driver_with_a_certificate_of_another_authority(secured: Stack, tmp_path: Path) -> None:
    assert secured.certificates is not None
    other = identity(make_certificates(tmp_path))
    own = identity(secured.certificates)
    # It knows the cluster's authority, and is not known to it.
    text = secured.drive_from_outside("-c", REFUSED, **{**other, "SHOAL_TLS_CA": own["SHOAL_TLS_CA"]})
    assert "refused: Shoal could not connect to a gateway" in text
    assert f"with certificates of the authority {own['SHOAL_TLS_CA']}" in text


#: Service → its network, its port, what a client says to it, and what it says when it serves that client.
SERVERS = {
    "etcd-1": ("etcd", 2379, "GET /version HTTP/1.0\r\n\r\n", " 200 OK"),
    "etcd-2": ("etcd", 2379, "GET /version HTTP/1.0\r\n\r\n", " 200 OK"),
    "nats": ("default", 4222, 'CONNECT {{"auth_token": "{token}"}}\r\nPING\r\n', "PONG\r\n"),
    "minio": ("default", 9000, "GET /minio/health/ready HTTP/1.1\r\nHost: minio\r\n\r\n", " 200 OK"),
}


def serves(stack: Stack, service: str, tls: ssl.SSLContext | None) -> bool:
    """Whether it answers a client that speaks TLS like this, or none."""
    network, port, words, expected = SERVERS[service]
    text = ""
    try:
        with socket.create_connection((stack.address(service, network), port), timeout=60) as plain:
            if service == "nats":
                # It introduces itself before TLS begins.
                while not text.endswith("\r\n"):
                    text += plain.recv(1).decode()
            sock = tls.wrap_socket(plain, server_hostname=service) if tls else plain
            with sock:
                sock.sendall(words.format(token=stack.read("gcs", "/run/shoal/token")).encode())
                while expected not in text and (data := sock.recv(4096)):
                    text += data.decode(errors="replace")
    except (ssl.SSLError, ConnectionError):
        return False
    return expected in text


@pytest.mark.parametrize("service", SERVERS)
def test_servers_of_others_refuse_who_speaks_no_tls_or_has_no_certificate(secured: Stack, service: str) -> None:
    assert secured.certificates is not None
    stranger = ssl.create_default_context(cafile=secured.certificates / "ca.pem")
    known = ssl.create_default_context(cafile=secured.certificates / "ca.pem")
    known.load_cert_chain(secured.certificates / "gcs" / "cert.pem", secured.certificates / "gcs" / "key.pem")
    assert serves(secured, service, known)
    assert not serves(secured, service, None)
    # MinIO knows its clients by their signatures.
    assert serves(secured, service, stranger) == (service == "minio")


def test_the_state_is_in_etcd(secured: Stack) -> None:
    nodes = {*secured.keys("etcd-1", "node"), *secured.keys("etcd-2", "node")}
    assert len(nodes) == 2
    assert secured.active_gcs().status == "running"


def test_raylets_spill_to_minio_and_restore_from_it_themselves(secured: Stack) -> None:
    with secured.driver(SPILLING) as driver:
        job = driver.report()["job"]
        eventually(lambda: secured.spilled(job), "something is spilled")
        driver.tell("read")
        assert driver.report()["values"] == list(range(6))
        logs = secured.logs("raylet", "gateway")
        assert '"event": "service_started"' in logs
        assert "direct_transfer_failed" not in logs
