"""What this machine is called: its address, and its name at the cloud provider."""

from __future__ import annotations

import os
import socket

from shoal import _current


def get_node_ip_address(address: str | None = None) -> str:
    """The IP address of this node, as the cluster knows it; of this machine where Shoal is not running.

    ``address`` ("host:port"): ask for the interface that leads there instead. 127.0.0.1 when no network is there.
    """
    core = _current.current_or_none()
    if address is None and core is not None:
        return core.host
    host, _, port = (address or "8.8.8.8:53").rpartition(":")
    # Connecting a datagram socket sends nothing: the kernel only picks the route and with it the local address.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, int(port)))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def get_node_instance_id() -> str:
    """What the environment variable ``SHOAL_CLOUD_INSTANCE_ID`` of this process says, which whoever starts nodes on a
    cloud's machines may set; "" where nobody has."""
    return os.environ.get("SHOAL_CLOUD_INSTANCE_ID", "")
