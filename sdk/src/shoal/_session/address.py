"""Which cluster ``init`` connects to: its address, and the token for it."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

from shoal import exceptions
from shoal._launch import embedded, local_nodes
from shoal._launch.cluster_address import ClusterAddress
from shoal._net.gcs.client import visiting
from shoal_common.auth import TokenError, find_token
from shoal_common.channel import tcp
from shoal_common.states import NodeState

#: Of the addresses of gateways.
GATEWAY_SCHEME = "shoal://"
ADDRESS_VARIABLE = "SHOAL_ADDRESS"


def target_of(address: str | None) -> str:
    """What ``init(address)`` connects to: "auto", "host:port", a gateway; "" = a cluster of its own."""
    if address == "local":
        return ""
    if address is not None and not isinstance(address, str):
        raise TypeError(f"address must be None or a str, not {type(address).__name__}")
    named = os.environ.get(ADDRESS_VARIABLE, "") if address in (None, "auto") else address
    if named in (None, "", "local"):
        return "auto" if address == "auto" or (address is None and not named and local_nodes.running_clusters()) else ""
    return named


def find_cluster(address: str) -> ClusterAddress:
    """Raises: ConnectionError when nobody is there, AuthenticationError for a wrong token, ValueError."""
    if address == "auto":
        here = clusters_here()
        if not here:
            raise ConnectionError(
                "Could not find any running Shoal instance. Please specify the one to connect to by setting `address`."
            )
        return here[0]
    if address.startswith("ray://"):
        raise ValueError(f"{address} is an address of Ray's client: connect to a gateway, shoal://host:port, instead")
    if not _names_gcs(address):
        raise ValueError(f"Malformed address: {address}. Expected 'host:port', 'shoal://host', 'auto' or 'local'.")
    token = token_for(address)
    with visiting(address, token) as gcs:
        nodes = gcs.nodes.list()
    # Also to one that drains: a driver there has its tasks run elsewhere. But rather to another.
    living = [node for node in nodes if node.state is not NodeState.DEAD]
    for node in sorted(living, key=lambda node: node.state is NodeState.DRAINING):
        if os.path.exists(node.raylet_path):
            host = node.host if node.channel_port else ""
            return ClusterAddress(address, node.raylet_path, node.node_id.hex(), node.session_dir, token, host)
    raise ConnectionError(f"The cluster at {address} has no node on this machine to attach to.")


def _names_gcs(address: str) -> bool:
    """host:port, or several of them with commas between."""
    for each in address.split(","):
        host, _, port = each.rpartition(":")
        # A system takes the port modulo 65536, and so reaches somebody else by one that is too large.
        if not host or "/" in host or not (port.isdecimal() and 0 < int(port) <= tcp.MAX_PORT):
            return False
    return True


def clusters_here() -> list[ClusterAddress]:
    """Those that outlive drivers come before those of other drivers."""
    return [*local_nodes.running_clusters(), *embedded.running_clusters()]


def gcs_meant(given: str | None) -> str:
    """host:port of the GCS that whoever is no driver asks, a command say: the one that is ``given``, else of the
    environment, else of the first of `clusters_here`. None and "auto" = none is given.

    Raises: ConnectionError (there is none), ValueError (it is no address of a GCS).
    """
    found = next((each for each in (given, os.environ.get(ADDRESS_VARIABLE)) if each not in (None, "", "auto")), None)
    found = found or next((cluster.gcs_address for cluster in clusters_here()), None)
    if found is None:
        raise ConnectionError("no cluster runs on this machine: start one, or name one by its GCS, host:port")
    if found.startswith(GATEWAY_SCHEME):
        raise ValueError(f"{found} is a gateway, for drivers: name the GCS, host:port")
    if not _names_gcs(found):
        raise ValueError(f"{found!r} is not host:port of a GCS")
    return found


def token_for(address: str) -> str:
    """The token of the cluster whose GCS is there: the environment's, else this machine's record, else the file's.

    "" = there is none, which the cluster refuses. Raises: AuthenticationError when what there is cannot be used.
    """
    if not os.environ.get("SHOAL_AUTH_TOKEN"):
        known = next((cluster.token for cluster in clusters_here() if cluster.gcs_address == address), "")
        if known:
            return known
    return given_token()


def token_file_for(address: str) -> Path | None:
    """In which the user of an embedded cluster finds its token; None = no such cluster of this machine is there."""
    here = (cluster for cluster in embedded.running_clusters() if cluster.gcs_address == address)
    return next((embedded.token_file(Path(cluster.session_dir)) for cluster in here), None)


def given_token() -> str:
    """The environment's, else the file's; "" = there is none. Raises: AuthenticationError when it cannot be used."""
    try:
        return find_token(os.environ)
    except TokenError as error:
        raise exceptions.AuthenticationError(f"{error}.") from None


def own_host(cluster: ClusterAddress) -> str:
    """The address by which other nodes reach this driver; "" where there are none.

    It need not be its node's: the driver may run in another container, and share only the node's sockets. The address
    towards the GCS tells, unless the GCS is on this machine: then the node is too.
    """
    if not cluster.node_host:
        return ""
    host, _, port = cluster.gcs_address.split(",")[0].rpartition(":")
    own = tcp.local_address(host, int(port))
    return cluster.node_host if ipaddress.ip_address(own).is_loopback else own
