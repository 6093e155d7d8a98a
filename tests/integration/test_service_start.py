"""Services whose etcd or NATS is absent, refuses them or is another cluster's: they say so, and end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.clusters import ServiceProcess
from support.processes import eventually
from support.servers import EtcdServer, NatsServer, free_port, running

from shoal_common.service import healthcheck

TOKEN = "the-token-of-this-cluster"
PASSWORD = "the-password"


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[EtcdServer]]:
    servers = [EtcdServer(tmp_path_factory.mktemp("etcd")) for _ in range(2)]
    with running(*servers):
        yield servers


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats"), "the token of another cluster")
    with running(server):
        yield server


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., ServiceProcess]]:
    processes: list[ServiceProcess] = []

    def start(service: str, **flags: Any) -> ServiceProcess:
        needed: dict[str, Any] = {"port": 0}
        if service == "raylet":
            needed |= {
                "gcs_address": "127.0.0.1:1",
                "scheduler_addresses": "127.0.0.1:1",
                "objectstore_address": "127.0.0.1:1",
                "cluster_id": "c",
                "session_dir": tmp_path,
                "object_store_bytes": 1 << 20,
            }
        elif service == "gcs":
            needed |= {"store_path": tmp_path / "gcs.sqlite"}
        process = ServiceProcess(service, f"{service}{len(processes)}", tmp_path, TOKEN, needed | flags)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.end()


def lines(process: ServiceProcess) -> list[str]:
    events = [json.loads(line) for line in process.text().splitlines()]
    return [f"{event['event']} {event.get('error', '')}" for event in events]


def failure(process: ServiceProcess) -> str:
    """The one line that says why it did not start."""
    assert process.wait() == 1, process.text()
    assert "Traceback" not in process.text()
    assert TOKEN not in process.text()
    [line] = [line for line in lines(process) if line.startswith("service_start_failed")]
    return line


def test_etcd_that_is_not_there_is_waited_for_and_named(start: Callable[..., ServiceProcess]) -> None:
    absent = f"127.0.0.1:{free_port()}"
    process = start("gcs", etcd=absent, start_timeout_s=3)
    assert f"etcd at {absent}" in failure(process)
    waiting = [line for line in lines(process) if "waiting for" in line]
    assert len(waiting) == 1, "one line, not one a try"
    assert absent in waiting[0]


@pytest.mark.parametrize("service", ["gcs", "scheduler", "raylet"])
def test_nats_that_is_not_there_is_waited_for_and_named(service: str, start: Callable[..., ServiceProcess]) -> None:
    absent = f"127.0.0.1:{free_port()}"
    process = start(service, nats_address=absent, start_timeout_s=3)
    assert f"NATS at {absent}" in failure(process)
    waiting = [line for line in lines(process) if "waiting for" in line]
    assert len(waiting) == 1
    assert absent in waiting[0]


def test_a_scheduler_waits_for_the_gcs_as_long_as_it_is_told(start: Callable[..., ServiceProcess]) -> None:
    absent = f"127.0.0.1:{free_port()}"
    said = failure(start("scheduler", gcs_address=absent, start_timeout_s=1.5))
    assert "the GCS did not confirm it in 1.5 s" in said
    assert absent in said


def test_what_starts_late_is_waited_for(start: Callable[..., ServiceProcess], tmp_path: Path) -> None:
    etcd, nats = EtcdServer(tmp_path / "etcd"), NatsServer(tmp_path / "nats", TOKEN)
    health = f"127.0.0.1:{free_port()}"
    flags = {"health_port": health.rpartition(":")[2], "cluster_id": "c"}
    process = start("gcs", etcd=etcd.address, nats_address=nats.address, **flags)
    eventually(lambda: "waiting for the metadata store" in process.text(), "it waits for etcd")
    assert "does not answer" in healthcheck.check(health)
    with running(etcd):
        eventually(lambda: "waiting for NATS" in process.text(), "it waits for NATS")
        with running(nats):
            eventually(lambda: "gcs_leads" in process.text(), "it leads")
            assert healthcheck.check(health) == ""
            process.end()
    assert process.wait() == 0


def test_a_service_that_waits_can_be_stopped(start: Callable[..., ServiceProcess]) -> None:
    process = start("gcs", etcd=f"127.0.0.1:{free_port()}")
    eventually(lambda: "waiting for" in process.text(), "it waits")
    process.end()
    assert process.wait() == 0


@pytest.mark.parametrize("service", ["gcs", "scheduler", "raylet"])
def test_another_clusters_nats_refuses_the_token(
    service: str, nats: NatsServer, start: Callable[..., ServiceProcess]
) -> None:
    assert f"NATS at {nats.address} has refused the token" in failure(start(service, nats_address=nats.address))


def test_shards_in_another_order_or_of_another_cluster(
    etcd: list[EtcdServer], start: Callable[..., ServiceProcess]
) -> None:
    addresses = [server.address for server in etcd]
    first = start("gcs", etcd=",".join(addresses), cluster_id="c")
    eventually(lambda: "gcs_leads" in first.text(), "it leads")
    first.end()
    assert "is listed as shard 0: correct the order" in failure(
        start("gcs", etcd=",".join(addresses[::-1]), cluster_id="c")
    )
    assert "belongs to the cluster 'c', and this one is 'd'" in failure(
        start("gcs", etcd=",".join(addresses), cluster_id="d")
    )
    assert "is one of 2 shards, and the list has 1" in failure(start("gcs", etcd=addresses[0], cluster_id="c"))


def test_a_password_comes_from_a_file_and_is_checked(tmp_path: Path, start: Callable[..., ServiceProcess]) -> None:
    server = EtcdServer(tmp_path / "etcd")
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    with running(server):
        server.ask_for_passwords(PASSWORD)
        flags = {"etcd": server.address, "cluster_id": "c", "etcd_user": "root"}
        process = start("gcs", **flags, etcd_password_file=file)
        eventually(lambda: "gcs_leads" in process.text(), "it leads")
        process.end()
        file.write_text("something else")
        refused = failure(start("gcs", **flags, etcd_password_file=file))
        assert f"etcd at {server.address} refuses the user 'root'" in refused
        assert "something else" not in refused
        assert "absent" in failure(start("gcs", **flags, etcd_password_file=tmp_path / "absent"))
