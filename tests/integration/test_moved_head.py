"""A head whose name leads to another address by now: whoever reconnects looks it up anew."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_OWN_HOSTS = ["unshare", "--mount", "--map-root-user"]

#: Reaches a server by its name, alone or in a list, which then goes away and comes again at another address.
_PROGRAM = """
import asyncio, sys
from grpc_health.v1 import health_pb2, health_pb2_grpc
from shoal_common.rpc.client import aio_channel
from shoal_common.rpc.server import create_server, serve

TOKEN = "0" * 32

def point_to(address):
    with open("/etc/hosts", "w") as file:
        file.write(f"127.0.0.1 localhost\\n127.0.0.9 another\\n{address} the-head\\n")

async def main():
    point_to("127.0.0.2")
    server = create_server(TOKEN)
    port = await serve(server, "127.0.0.2", 0)
    channel = aio_channel(sys.argv[1].replace("PORT", str(port)), TOKEN, patient=True)
    ask = health_pb2_grpc.HealthStub(channel).Check
    await ask(health_pb2.HealthCheckRequest(), timeout=30)
    await server.stop(None)
    waiting = ask(health_pb2.HealthCheckRequest(), timeout=30)
    point_to("127.0.0.3")
    server = create_server(TOKEN)
    await serve(server, "127.0.0.3", port)
    await waiting
    await channel.close()
    await server.stop(None)

asyncio.run(main())
"""


@pytest.mark.parametrize("addresses", ["the-head:PORT", "another:PORT,the-head:PORT"])
def test_names_are_looked_up_again_with_each_connection(tmp_path: Path, addresses: str) -> None:
    if subprocess.run([*_OWN_HOSTS, "true"], capture_output=True).returncode:
        pytest.skip("a process here cannot have an /etc/hosts of its own (unshare --mount)")
    hosts = tmp_path / "hosts"
    hosts.touch()
    within = f"mount --bind {hosts} /etc/hosts && exec {sys.executable} -c '{_PROGRAM}' {addresses}"
    done = subprocess.run([*_OWN_HOSTS, "sh", "-c", within], capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
