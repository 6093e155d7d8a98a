"""One gRPC channel to a service of which several replicas run: the address it is told, as gRPC wants it.

A channel connects to the first address that takes it and, when that connection breaks, goes through them again. It
looks up a single name again each time, so one name for all replicas (several A records, as an alias in a container
network) follows those that come and go. A list it takes of numeric addresses only: for one with names in it there is a
relay, which looks them up with each connection.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from shoal_common.rpc.relay import relay_to


def grpc_target(addresses: Sequence[str]) -> str:
    """``host:port`` of each replica → the target of one channel to all of them."""
    if len(addresses) == 1:
        return addresses[0]
    families = {_family(address) for address in addresses}
    if len(families) == 1 and "" not in families:
        return f"{families.pop()}:{','.join(addresses)}"
    return relay_to(tuple(addresses))


def _family(address: str) -> str:
    """ "ipv4" or "ipv6"; "" when the host is a name."""
    try:
        return f"ipv{ipaddress.ip_address(address.rpartition(':')[0].strip('[]')).version}"
    except ValueError:
        return ""
