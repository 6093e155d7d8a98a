"""Where a driver finds its cluster."""

from __future__ import annotations

import msgspec


class ClusterAddress(msgspec.Struct, frozen=True):
    """Addresses, and the token."""

    gcs_address: str
    raylet_path: str
    #: Hexadecimal.
    node_id: str
    session_dir: str
    token: str
    #: Where other nodes reach this one; empty = it is the only node of its cluster.
    node_host: str = ""
