"""Where a client's streams may go: to this cluster's processes, nowhere else."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection

from shoal_common.channel.gateway_handshake import Target, ToPath, ToPort


class GatewayTargets:
    """Who has the cluster's token may run anything in the cluster; but a gateway is no way to somewhere else."""

    def __init__(self, sockets_dir: str, hosts: Callable[[], Collection[str]]) -> None:
        """``hosts``: the numeric addresses of the nodes that live."""
        self._sockets_dir = os.path.normpath(sockets_dir)
        self._hosts = hosts

    def refuse(self, target: Target) -> str:
        """Why nothing is connected to it, or ""."""
        match target:
            case ToPath(path) if os.path.dirname(os.path.normpath(path)) != self._sockets_dir:
                return f"{path} is not a socket of this node"
            case ToPort(host, port) if host not in self._hosts():
                return f"{host}:{port} is not on a node of this cluster"
        return ""
