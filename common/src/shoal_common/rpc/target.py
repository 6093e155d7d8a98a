"""One gRPC channel to a service of which several replicas run: the address it is told, as gRPC wants it.

A channel connects to the first address that takes it and, when that connection breaks, goes through them again. It
looks up a single name again each time, so one name for all replicas (several A records, as an alias in a container
network) follows those that come and go. Of a list the names are looked up once, when the channel is made.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence

_log = logging.getLogger(__name__)


def grpc_target(addresses: Sequence[str]) -> str:
    """``host:port`` of each replica → the target of one channel to all of them."""
    if len(addresses) == 1:
        return addresses[0]
    found: dict[socket.AddressFamily, list[str]] = {socket.AF_INET: [], socket.AF_INET6: []}
    for address in addresses:
        host, _, port = address.rpartition(":")
        try:
            resolved = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
        except OSError as error:
            _log.warning("%s is left out, its name cannot be looked up: %s", address, error)
            continue
        for family, _, _, _, at in resolved:
            ip = str(at[0])
            text = f"[{ip}]:{port}" if family is socket.AF_INET6 else f"{ip}:{port}"
            if family in found and text not in found[family]:
                found[family].append(text)
    if found[socket.AF_INET]:  # one target has addresses of one family
        return "ipv4:" + ",".join(found[socket.AF_INET])
    if found[socket.AF_INET6]:
        return "ipv6:" + ",".join(found[socket.AF_INET6])
    return addresses[0]  # the channel keeps asking for it, and its calls say what is wrong
