"""Machines of their own on this one: network namespaces on one switch, which can be cut off and slowed down.

Takes root, and Debian's iproute2 and iptables; without them tests fail in CI and are skipped elsewhere.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support.processes import alive

_NAMESPACES = Path("/run/netns")
_PREFIX = "shoal-"
#: Bytes that a slow machine sends at once.
_BURST = "64kb"


class Switch:
    """All namespaces are named after this process; those of one that was killed go when the next switch is made.

    The switch is in a namespace too, since the firewall of a machine with Docker forwards nothing between others.
    """

    def __init__(self) -> None:
        _need_privileges()
        _remove_leftovers()
        self._name = f"{_PREFIX}{os.getpid()}-switch"
        self._network = f"10.{64 + os.getpid() % 64}.{os.getpid() // 64 % 256}"
        self._machines: list[Machine] = []
        #: Where this process is reached by the machines.
        self.address = f"{self._network}.1"
        self._link = f"sh{os.getpid()}"
        _ip(f"netns add {self._name}")
        _ip(f"link add {self._link} type veth peer name uplink netns {self._name}")
        _ip(f"address add {self.address}/24 dev {self._link}", f"link set {self._link} up")
        _ip(
            "link add switch type bridge",
            "link set switch up",
            "link set uplink master switch",
            "link set uplink up",
            namespace=self._name,
        )

    def machine(self, name: str) -> Machine:
        number = len(self._machines) + 2
        machine = Machine(f"{_PREFIX}{os.getpid()}-{name}", f"{self._network}.{number}")
        _ip(f"netns add {machine.namespace}")
        _ip(f"link add port{number} type veth peer name eth0 netns {machine.namespace}", namespace=self._name)
        _ip(f"link set port{number} master switch", f"link set port{number} up", namespace=self._name)
        _ip(
            f"address add {machine.address}/24 dev eth0",
            "link set eth0 up",
            "link set lo up",
            namespace=machine.namespace,
        )
        self._machines.append(machine)
        return machine

    def close(self) -> None:
        """After everything that ran on its machines has ended."""
        # A namespace's own links go some time after it.
        _ip(f"link delete {self._link}")
        for machine in self._machines:
            _ip(f"netns delete {machine.namespace}")
        _ip(f"netns delete {self._name}")


class Machine:
    def __init__(self, namespace: str, address: str) -> None:
        self.namespace = namespace
        self.address = address
        #: What starts a command there.
        self.enter = ("nsenter", f"--net={_NAMESPACES / namespace}", "--")

    def cut(self) -> None:
        """No packet comes in or goes out, and nobody is told; within the machine they pass."""
        self._iptables("--append INPUT ! --in-interface lo --jump DROP")
        self._iptables("--append OUTPUT ! --out-interface lo --jump DROP")

    def heal(self) -> None:
        self._iptables("--flush")

    def slow(self, mbit_per_s: int) -> None:
        """What it sends goes no faster."""
        shape = f"qdisc replace dev eth0 root tbf rate {mbit_per_s}mbit burst {_BURST} latency 50ms"
        _run("tc", "-netns", self.namespace, *shape.split())

    def fast(self) -> None:
        _run("tc", "-netns", self.namespace, *"qdisc delete dev eth0 root".split())

    def sent_bytes(self) -> int:
        table = _run(*self.enter, "cat", "/proc/net/dev")
        [line] = [line for line in table.splitlines() if line.strip().startswith("eth0:")]
        return int(line.partition(":")[2].split()[8])

    def _iptables(self, arguments: str) -> None:
        _run(*self.enter, "iptables", *arguments.split())


def _need_privileges() -> None:
    missing = [program for program in ("ip", "tc", "nsenter", "iptables") if not shutil.which(program)]
    if os.geteuid() == 0 and not missing:
        return
    reason = "machines with networks of their own take root" + "".join(f", and {program}" for program in missing)
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def _remove_leftovers() -> None:
    for namespace in _NAMESPACES.glob(f"{_PREFIX}*"):
        if not alive(int(namespace.name.split("-")[1])):
            _ip(f"netns delete {namespace.name}")


def _ip(*commands: str, namespace: str = "") -> None:
    for command in commands:
        _run("ip", *(["-netns", namespace] if namespace else []), *command.split())


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout
