"""The command ``shoal`` as its user sees it: real processes, a home and a place for files of the test's own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.drivers import Driver
from support.processes import PATIENCE_S, alive, all_gone, descendants, eventually, stopped
from support.servers import EtcdServer, MinioServer, NatsServer, free_port, running

SMALL = ("--num-cpus=1", "--object-store-memory=80000000")


class Machine:
    """One user's machine."""

    def __init__(self, directory: Path, name: str = "t") -> None:
        """Several with one ``directory`` have a home in common, and so the token."""
        self.home = directory / "home"
        self.files = directory / name
        for path in (self.home, self.files):
            path.mkdir(exist_ok=True)
        self.port = free_port()
        while [free_port(), free_port()] != [self.port + 1, self.port + 2]:  # the head takes three
            self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.environment = {"HOME": str(self.home), "TMPDIR": str(self.files)}

    def shoal(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "shoal.cli", *arguments],
            env={**self.inherited(), **environment},
            text=True,
            capture_output=True,
            timeout=PATIENCE_S,
        )

    def done(self, *arguments: str) -> str:
        """What a command that succeeds prints."""
        result = self.shoal(*arguments)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def refused(self, *arguments: str, **environment: str) -> str:
        """The one line by which a command says why it does not do it."""
        result = self.shoal(*arguments, **environment)
        assert result.returncode == 1
        *waits, reason = result.stderr.splitlines()
        # Where starting takes long, lines before it say what is waited for.
        assert all(" is not up yet: " in line for line in waits), result.stderr
        return reason

    def misspelt(self, *arguments: str) -> str:
        """The line below the usage that says what is wrong with the arguments."""
        result = self.shoal(*arguments)
        assert result.returncode == 2, result.stderr
        return result.stderr.splitlines()[-1]

    def start_head(self, *arguments: str) -> str:
        return self.done("start", "--head", f"--port={self.port}", *SMALL, *arguments)

    def block(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "shoal.cli", "start", "--block", *arguments],
            env=self.inherited(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_bytes()) for path in self.files.glob("*/node_*/node.json")]

    def pids(self, service: str = "") -> list[int]:
        return [
            daemon["pid"]
            for record in self.records()
            for daemon in record["daemons"]
            if service in ("", daemon["service"])
        ]

    def everything(self) -> set[int]:
        pids = set(self.pids())
        return pids | {child for pid in pids for child in descendants(pid)}

    def inherited(self) -> dict[str, str]:
        ours = {name: value for name, value in os.environ.items() if not name.startswith("SHOAL_")}
        return {**ours, **self.environment}


@pytest.fixture
def machine() -> Iterator[Machine]:
    directory = Path(tempfile.mkdtemp(prefix="m-", dir="/tmp"))
    machine = Machine(directory)
    yield machine
    machine.done("stop", "--grace-period=5")
    shutil.rmtree(directory)


def test_explain(machine: Machine) -> None:
    machine.start_head()
    code = """
    @ray.remote(num_cpus=64)
    def needs_much(): ...

    @ray.remote
    def needs(value): ...

    @ray.remote(num_cpus=32)
    class Large: ...

    ray.init(address="auto", log_to_driver=False)
    ref, actor = needs.remote(needs_much.remote()), Large.remote()
    group = ray.util.placement_group([{"CPU": 64}]).id.hex()
    report(ref=ref.hex(), task=ref.task_id().hex(), actor=actor._actor_id.hex(), group=group)
    command()
    """
    with Driver(code, env=machine.environment) as driver:
        ids = driver.report()
        said = machine.done("explain", ids["ref"]).splitlines()
        assert said[0] == f"ObjectRef({ids['ref']}) of needs is waiting for its arguments"
        assert "of needs_much is waiting for a worker" in said[1]
        assert "it waits for 64 CPU" in said[1]
        assert machine.done("explain", ids["task"]).splitlines()[0] == said[0]
        assert "of Large is pending creation" in machine.done("explain", ids["actor"])
        assert "is pending: 0 of 1 bundles have a node; 1 needs 64 CPU" in machine.done("explain", ids["group"])
    assert "neither an actor nor a placement group" in machine.refused("explain", "ab" * 16)
    assert "no process of the cluster owns" in machine.refused("explain", ids["ref"])
    assert "is not the id of" in machine.misspelt("explain", "ab12")


def test_a_head_with_its_dashboard(machine: Machine) -> None:
    port = free_port()
    said = machine.start_head("--include-dashboard", f"--dashboard-port={port}")
    url = f"http://127.0.0.1:{port}"
    assert f"The dashboard is at {url}" in said
    assert f"The dashboard is at {url}" in machine.done("dashboard")
    program = "from shoal.util.state import list_nodes; print(*(node.state for node in list_nodes()))"
    told = subprocess.run(
        [sys.executable, "-c", program], env=machine.inherited(), text=True, capture_output=True, timeout=PATIENCE_S
    )
    assert told.stdout == "ALIVE\n", told.stderr
    assert "Stopped 5 processes" in machine.done("stop")


def test_a_cluster_outlives_its_drivers_and_goes_with_stop(machine: Machine) -> None:
    outside = f"shoal://127.0.0.1:{(gateway_port := free_port())}"
    said = machine.start_head("--labels=zone=a", f"--gateway-port={gateway_port}")
    assert outside in said
    assert f"shoal start --address={machine.address}" in said
    token = machine.home / ".shoal" / "auth_token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert token.read_text().strip() not in said

    make = """
    @ray.remote
    class Counter:
        def __init__(self):
            self.calls = 0
        def add(self):
            self.calls += 1
            return self.calls

    ray.init(address="auto", namespace="n", log_to_driver=False)
    counter = Counter.options(name="counter", lifetime="detached").remote()
    report(calls=ray.get(counter.add.remote()))
    """
    with Driver(make, env=machine.environment) as first:
        assert first.report() == {"calls": 1}
        assert first.wait() == 0
    find = """
    ray.init(namespace="n", log_to_driver=False)  # without an address: what runs on this machine
    report(calls=ray.get(ray.get_actor("counter").add.remote()), labels=ray.nodes()[0]["Labels"])
    """
    with Driver(find, env=machine.environment) as second:
        facts = second.report()
        assert facts["calls"] == 2
        assert facts["labels"]["zone"] == "a"
        assert second.wait() == 0
    with Driver(find, env={**machine.environment, "SHOAL_ADDRESS": outside}) as third:
        assert third.report()["calls"] == 3
        assert third.wait() == 0
    assert "Actors: 1 alive" in machine.done("status")

    everything = machine.everything()
    assert "Stopped 4 processes of 1 node." in machine.done("stop")
    all_gone(everything)
    assert not list(machine.files.glob("*/node_*"))
    assert "Nothing runs here." in machine.done("stop")


def test_another_raylet_joins_is_shown_and_found_dead(machine: Machine) -> None:
    machine.start_head()
    machine.done("start", f"--address={machine.address}", *SMALL, '--resources={"disk": 2}', "--num-gpus=1")
    status = machine.done("status", f"--address={machine.address}")
    assert "2 nodes alive, 0 dead" in status
    assert "CPU 0/2, GPU 0/1, disk 0/2" in status

    victim = next(record for record in machine.records() if not record["head"])
    os.kill(victim["daemons"][0]["pid"], signal.SIGKILL)
    eventually(lambda: " dead: " in machine.done("status"), "it is found dead")
    status = machine.done("status")
    assert "1 node alive, 1 dead" in status
    line = next(line for line in status.splitlines() if victim["cluster"]["node_id"] in line)
    assert "heartbeat" in line or "answer" in line


def test_what_cannot_be_started_is_said_in_a_line(machine: Machine) -> None:
    assert "no cluster token" in machine.refused("start", f"--address={machine.address}")
    assert "no cluster runs on this machine" in machine.refused("status")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", machine.port))
        taken.listen()
        assert f"cannot listen on {machine.address}" in machine.refused("start", "--head", f"--port={machine.port}")
    assert machine.address in machine.refused("start", f"--address={machine.address}")
    assert machine.address in machine.refused("status", f"--address={machine.address}")
    machine.start_head()
    assert "runs here already" in machine.refused("start", "--head")
    wrong = machine.refused("start", f"--address={machine.address}", SHOAL_AUTH_TOKEN="wrong")
    assert "token" in wrong
    assert "--etcd" in machine.refused("start", f"--address={machine.address}", "--etcd=here:2379")
    assert "say --head" in machine.refused("start")
    assert "--standby needs --address" in machine.refused("start", "--head", "--standby")
    assert "several heads need --etcd" in machine.refused("start", "--head", "--address=127.0.0.1:1,127.0.0.1:2")
    assert "this one's is 127.0.0.1:6381" in machine.refused("start", "--head", "--address=a:1,b:2", "--etcd=here:2379")
    assert "0.0.0.0" in machine.refused("start", "--head", "--node-ip-address=0.0.0.0")
    assert "Invalid label" in machine.refused("start", f"--address={machine.address}", "--labels=-a=b")
    assert "must not be negative" in machine.refused("start", f"--address={machine.address}", "--memory=-1")
    assert "cannot listen on" in machine.refused(
        "start", f"--address={machine.address}", *SMALL, f"--gateway-port={machine.port}"
    )
    assert len(machine.records()) == 1


def test_addresses_and_ports_that_cannot_be(machine: Machine) -> None:
    for address in ("here", "here:", ":6381", "here:http", "here:70000", "shoal://here:10001", "a:1,b"):
        assert "--address: " in machine.misspelt("start", f"--address={address}")
        assert "--address: " in machine.misspelt("status", f"--address={address}")
    for port in ("0", "-1", "65536", "x"):
        assert "is not a port" in machine.misspelt("start", "--head", f"--port={port}")
    assert "the next two" in machine.refused("start", "--head", "--port=65534", SHOAL_AUTH_TOKEN="t")
    name = "no-such-host.invalid"
    assert name in machine.refused("start", f"--address={name}:6381", SHOAL_AUTH_TOKEN="t")
    assert "is a gateway" in machine.refused("status", SHOAL_ADDRESS="shoal://here:10001")
    assert "SHOAL_TLS_CERT" in machine.refused("status", "--address=here:1", SHOAL_TLS_CA="/ca.pem")


@pytest.mark.parametrize("part", ["etcd", "nats", "s3"])
def test_a_head_without_its_etcd_nats_or_s3_does_not_start_and_names_it(machine: Machine, part: str) -> None:
    absent = f"127.0.0.1:{free_port()}"
    # Whoever waits for the absent one gives up soon, and nobody else before it.
    impatient = "OBJECTSTORE" if part == "s3" else "GCS"
    keys = {"SHOAL_S3_ACCESS_KEY": "key", "SHOAL_S3_SECRET_KEY": "the-secret-key"}
    head = ("start", "--head", f"--port={machine.port}", *SMALL, "--" + part)
    said = machine.refused(*head, absent, SHOAL_AUTH_TOKEN="t", **{f"SHOAL_{impatient}_START_TIMEOUT_S": "2"}, **keys)
    assert absent in said
    assert not machine.records()
    if part == "s3":
        assert "the-secret-key" not in said
        assert "SHOAL_S3_ACCESS_KEY" in machine.refused(*head, absent, SHOAL_AUTH_TOKEN="t")


def test_what_runs_is_found_and_stopped_when_the_disk_is_full(machine: Machine) -> None:
    machine.start_head()
    everything = machine.everything()
    # No file takes another byte.
    said = subprocess.run(
        ["prlimit", "--fsize=0", sys.executable, "-m", "shoal.cli", "stop"],
        env=machine.inherited(),
        text=True,
        capture_output=True,
        check=True,
        timeout=PATIENCE_S,
    )
    assert "Stopped 4 processes of 1 node." in said.stdout
    all_gone(everything)


def test_stop_kills_what_hangs_and_nothing_that_only_has_the_pid(machine: Machine) -> None:
    machine.start_head()
    (raylet,) = machine.pids("raylet")
    everything = machine.everything()
    os.kill(raylet, signal.SIGSTOP)
    eventually(lambda: stopped(raylet), "the raylet hangs")
    with subprocess.Popen(["sleep", "600"]) as stranger:
        record = machine.files.glob("*/node_*/node.json").__next__()
        facts = json.loads(record.read_bytes())
        facts["daemons"].append({"service": "raylet", "pid": stranger.pid, "started": 1})
        record.write_text(json.dumps(facts))
        said = machine.done("stop", "--grace-period=1")
        assert f"The raylet (pid {raylet}) did not end in 1 s and was killed." in said
        assert alive(stranger.pid)
        stranger.kill()
    all_gone(everything)


#: A detached actor on the node with a disk, which is called and left; a placement group beside it.
_BEGIN = """
ray.init(os.environ["SHOAL_ADDRESS"], namespace="kept", log_to_driver=False, logging_level="ERROR")

@ray.remote(num_cpus=0, resources={"disk": 1}, max_restarts=0)
class Counter:
    def __init__(self): self.value = 0
    def add(self):
        self.value += 1
        return self.value

counter = Counter.options(name="counter", lifetime="detached").remote()
report(value=ray.get(counter.add.remote()))
"""
#: What runs goes on, and something new can be made there.
_GO_ON = """
ray.init(os.environ["SHOAL_ADDRESS"], namespace="kept", log_to_driver=False, logging_level="ERROR")

@ray.remote(num_cpus=0, resources={"disk": 0.1})
class New:
    def call(self): return "called"

report(value=ray.get(ray.get_actor("counter").add.remote()), new=ray.get(New.remote().call.remote()))
"""


def says(code: str, machine: Machine, address: str) -> dict[str, Any]:
    """What a program reports that is attached to the cluster of this address."""
    with Driver(code, env={**machine.environment, "SHOAL_ADDRESS": address}) as driver:
        facts = driver.report()
        assert driver.wait() == 0
    return facts


def kill(pids: list[int]) -> None:
    """As by a loss of power."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    all_gone(pids)


def test_a_head_killed_and_started_again_on_its_directory_has_its_cluster_again(
    machine: Machine, tmp_path: Path
) -> None:
    other = Machine(machine.home.parent, "u")
    try:
        state = f"--directory={tmp_path / 'state'}"
        machine.start_head(state)
        other.done("start", f"--address={machine.address}", *SMALL, '--resources={"disk": 2}')
        workers = other.pids()
        assert says(_BEGIN, machine, machine.address) == {"value": 1}
        kill(machine.pids())
        machine.done("stop")
        machine.start_head(state)
        assert says(_GO_ON, machine, "auto") == {"value": 2, "new": "called"}
        assert all(map(alive, workers)), "that node has noticed nothing"
        eventually(lambda: "2 nodes alive, 1 dead" in machine.done("status"), "the old head's node is found dead")
    finally:
        other.done("stop", "--grace-period=5")


def test_a_standby_takes_over_from_a_head_that_is_killed(machine: Machine, tmp_path: Path) -> None:
    second, third = Machine(machine.home.parent, "u"), Machine(machine.home.parent, "v")
    heads = f"{machine.address},{second.address}"
    etcd = EtcdServer(tmp_path / "etcd")
    with running(etcd):
        try:
            both = (f"--address={heads}", f"--etcd={etcd.address}")
            assert f"shoal start --address={heads}" in machine.start_head(*both)
            second.start_head("--standby", *both)
            third.done("start", f"--address={heads}", *SMALL, '--resources={"disk": 2}')
            assert says(_BEGIN, machine, heads) == {"value": 1}
            kill(machine.pids())
            assert says(_GO_ON, second, "auto") == {"value": 2, "new": "called"}
            eventually(lambda: "2 nodes alive, 1 dead" in second.done("status"), "the lost head's raylet is dead")
        finally:
            for each in (third, second):
                each.done("stop", "--grace-period=5")


@pytest.mark.parametrize("how", ["a signal", "a death"])
def test_block_stays_until(machine: Machine, how: str) -> None:
    with machine.block("--head", f"--port={machine.port}", *SMALL) as blocked:
        eventually(lambda: any(record["cluster"]["node_id"] for record in machine.records()), "it is up")
        everything = machine.everything()
        if how == "a signal":
            blocked.terminate()
        else:
            os.kill(machine.pids("scheduler")[0], signal.SIGKILL)
        _, errors = blocked.communicate(timeout=PATIENCE_S)
    assert blocked.returncode == (0 if how == "a signal" else 1), errors
    assert ("The scheduler has ended" in errors) == (how == "a death")
    all_gone(everything)
    assert not machine.records()


def test_state_goes_to_etcd_events_through_nats_and_blobs_to_a_bucket(machine: Machine, tmp_path: Path) -> None:
    token = "token-of-the-cluster"
    (machine.home / ".shoal").mkdir(mode=0o700)
    (machine.home / ".shoal" / "auth_token").write_text(token)
    (machine.home / ".shoal" / "auth_token").chmod(0o600)
    etcd, nats, minio = (
        EtcdServer(tmp_path / "etcd"),
        NatsServer(tmp_path / "nats", token),
        MinioServer(tmp_path / "s3"),
    )
    machine.environment |= {"SHOAL_S3_ACCESS_KEY": minio.ACCESS_KEY, "SHOAL_S3_SECRET_KEY": minio.SECRET_KEY}
    with running(etcd, nats, minio):
        machine.start_head(f"--etcd={etcd.address}", f"--nats={nats.address}", f"--s3=http://{minio.address}")
        machine.done("start", f"--address={machine.address}", *SMALL)
        program = """
        ray.init("auto", log_to_driver=False)
        node = [node["NodeID"] for node in ray.nodes() if node["NodeID"] != ray.get_runtime_context().get_node_id()]
        there = ray.remote(lambda: ray.get_runtime_context().get_node_id())
        known = ray.remote(lambda: {name: value for name, value in os.environ.items() if "S3" in name})
        report(
            there=[ray.get(there.options(label_selector={"ray.io/node-id": id}).remote()) for id in node], node=node,
            known=ray.get(known.remote()),
        )
        """
        with Driver(program, env=machine.environment) as driver:
            facts = driver.report()
            assert facts["there"] == facts["node"]
            assert facts["known"] == {}, "users' programs have no credentials of the bucket"
            assert driver.wait() == 0
        assert any("/node/" in key for key in etcd.keys())  # noqa: SIM118 - not a dictionary
        assert minio.client().bucket_exists("shoal")
        machine.done("stop")
