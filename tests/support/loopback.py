"""Networks of their own for the processes of a test, in which links between nodes can be cut."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

#: Tests cut links for so long, in seconds: longer than the 15 s after which connections were given up before.
#: ``SHOAL_TEST_CUT_S=60`` for the minute that is promised.
CUT_S = float(os.environ.get("SHOAL_TEST_CUT_S", "16"))
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Network:
    """Only the loopback; each node has an address of its own on it, and one port by which the GCS reaches it."""

    @contextlib.contextmanager
    def cut(self, *nodes: tuple[str, int], answer: str = "") -> Iterator[None]:
        """No packet reaches or leaves these (address, port of its gRPC server), but those of that port. So the GCS
        finds that they live, and they do not reach each other. Nobody is told, or else whoever sends gets ``answer``
        (iptables' REJECT: tcp-reset ends each connection)."""
        jump = ["--jump", "REJECT", "--reject-with", answer] if answer else ["--jump", "DROP"]
        rules = []
        for host, port in nodes:
            rules.append(["--destination", host, "!", "--dport", str(port), *jump])
            if not answer:  # the answers come from there
                rules.append(["--source", host, "!", "--sport", str(port), *jump])
        for rule in rules:
            _iptables("--append", rule)
        try:
            yield
        finally:
            for rule in rules:
                _iptables("--delete", rule)


@contextlib.contextmanager
def own_network() -> Iterator[Network]:
    """This thread, and the processes that it starts meanwhile, are on a network of their own. The caller makes no
    connection itself: threads of gRPC are in the old one."""
    if os.geteuid() != 0 or not shutil.which("iptables"):
        pytest.skip("a network of one's own takes root, ip and iptables")
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if _libc.unshare(_CLONE_NEWNET):
            pytest.skip(f"a network of one's own: {os.strerror(ctypes.get_errno())}")
        try:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            yield Network()
        finally:
            if _libc.setns(before, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "cannot return to the network")
    finally:
        os.close(before)


def _iptables(action: str, rule: list[str]) -> None:
    subprocess.run(["iptables", "--wait", action, "INPUT", "--protocol", "tcp", *rule], check=True)
