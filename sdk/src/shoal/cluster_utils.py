"""A cluster of several nodes on this machine, for tests: ``shoal.cluster_utils.Cluster``, as Ray's.

Every node is a raylet of its own, with the amounts it was told; the head has the other services beside it.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import shoal
from shoal._launch import local_nodes as local
from shoal._launch.daemons import await_pid
from shoal._launch.directories import new_cluster_directory
from shoal._net.gcs.client import visiting
from shoal._not_implemented import refuse
from shoal_common.auth import TOKEN_VARIABLE
from shoal_common.states import NodeState
from shoal_common.surroundings import environment, interpreter, occupy_standard_streams

Node = local.LocalNode

#: What a node has unless told otherwise.
DEFAULT_NODE_ARGS = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 150 * 1024 * 1024}
#: A node that was killed is found dead within two seconds or three.
_GCS_FLAGS: dict[str, float] = {"silence_s": 1, "checks": 2}
#: Where an autoscaler adds nodes, what none can hold yet waits for so long, in seconds.
_AUTOSCALING_GRACE_S = 300
_HOST = "127.0.0.1"
_STOP_GRACE_S = 20.0


#: Arguments that a node of Ray's takes: what to do instead.
NOT_IMPLEMENTED = {
    "node_name": "give the node labels",
    "temp_dir": "the files of all nodes are below one directory: set SHOAL_TMPDIR before",
    "object_spilling_directory": "the cluster's objectstore service spills: set SHOAL_TMPDIR before",
    "ray_client_server_port": "pass gateway_port, for drivers with shoal://",
    "include_dashboard": "there is no dashboard yet. Leave it out",
    "dashboard_port": "there is no dashboard yet. Leave it out",
    "runtime_env": "environments belong to jobs, tasks and actors: give one to init",
}


class Cluster:
    """Its nodes end with ``shutdown``, and at the latest with this process, however that ends.

    While it is up the cluster's token is in this process's environment, so that ``shoal.init(cluster.address)`` works
    here and in its children.
    """

    def __init__(
        self,
        initialize_head: bool = False,
        connect: bool = False,
        head_node_args: dict[str, Any] | None = None,
        shutdown_at_exit: bool = True,
        *,
        _gcs_flags: Mapping[str, float] | None = None,
    ) -> None:
        """Raises: ValueError when head_node_args are given without initialize_head, or connect without a head."""
        if not initialize_head and (head_node_args or connect):
            raise ValueError("head_node_args and connect need a head: pass initialize_head=True")
        #: ``host:port`` of the GCS; empty before there is a head.
        self.address = ""
        self.head_node: Node | None = None
        self.worker_nodes: list[Node] = []
        self._gcs_flags = {**_GCS_FLAGS, **(_gcs_flags or {})}
        occupy_standard_streams()
        self._root = new_cluster_directory()
        self._keeper: subprocess.Popen[bytes] | None = subprocess.Popen(
            interpreter("shoal.cluster_utils", str(os.getpid()), str(self._root)),
            stdin=subprocess.DEVNULL,
            env=environment(),
        )
        self._token_before = os.environ.get(TOKEN_VARIABLE)
        self._token = self._token_before or secrets.token_hex(32)
        os.environ[TOKEN_VARIABLE] = self._token
        if shutdown_at_exit:
            atexit.register(self.shutdown)
        if initialize_head:
            self.add_node(**(head_node_args or {}))
            if connect:
                self.connect()

    @property
    def gcs_address(self) -> str:
        return self.address

    @property
    def directory(self) -> Path:
        """The files of all its nodes are below; it is gone after ``shutdown``."""
        return self._root

    def connect(self, namespace: str | None = None) -> Any:
        """Make this process a driver on the cluster."""
        return shoal.init(self.address, namespace=namespace)

    def add_node(self, wait: bool = True, **node_args: Any) -> Node:
        """Start a node; the first one is the head. It is in the cluster when this returns, whatever ``wait`` says.

        ``node_args``: num_cpus, num_gpus, resources, labels, memory, object_store_memory (bytes), env_vars (of what
        runs there), node_ip_address (of this machine, 127.0.0.2 for example), gateway_port,
        metrics_export_port (of Prometheus' text; default: a free one).
        Raises: TypeError for others, ValueError for amounts out of range and for what only nodes of Ray have,
        RuntimeError when it does not start.
        """
        for name in NOT_IMPLEMENTED.keys() & node_args.keys():
            refuse(name, node_args.pop(name), (None, False), NOT_IMPLEMENTED[name])
        host = node_args.pop("node_ip_address", None) or _HOST
        known = local.NodeOptions.__struct_fields__
        unknown = sorted(node_args.keys() - set(known))
        if unknown:
            raise TypeError(
                f"unknown arguments of a node: {', '.join(unknown)}. It takes node_ip_address, {', '.join(known)}"
            )
        options = local.NodeOptions(**{**DEFAULT_NODE_ARGS, **node_args})
        local.check(options)
        if self.head_node is None:
            head = local.HeadOptions(port=0, gcs=self._gcs_flags)
            self.head_node = local.start_head(self._root, self._token, host, head, options)
            self.address = self.head_node.cluster.gcs_address
            return self.head_node
        node = local.start_node(self._root, self._token, self.address, host, options)
        self.worker_nodes.append(node)
        return node

    def remove_node(self, node: Node, allow_graceful: bool = True) -> None:
        """End a node: after it has said goodbye, or at once as by a loss of power. The head takes the cluster along.

        Raises: ValueError when it is not a node of this cluster.
        """
        if node not in self.list_all_nodes():
            raise ValueError(f"node {node.node_id} is not one of this cluster")
        if node is self.head_node:
            for other in list(self.worker_nodes):
                self.remove_node(other, allow_graceful)
            self.head_node, self.address = None, ""
        else:
            self.worker_nodes.remove(node)
        local.stop([node], grace_s=_STOP_GRACE_S if allow_graceful else None)

    def list_all_nodes(self) -> list[Node]:
        """Those that were added and not removed, the head first."""
        return [*([self.head_node] if self.head_node else []), *self.worker_nodes]

    def wait_for_nodes(self, timeout: float = 30) -> None:
        """Returns when the GCS knows exactly the nodes of ``list_all_nodes`` as alive.

        Raises: TimeoutError after ``timeout`` seconds.
        """
        expected = {node.node_id for node in self.list_all_nodes()}
        deadline = time.monotonic() + timeout
        while True:
            with visiting(self.address, self._token) as gcs:
                alive = {node.node_id.hex() for node in gcs.nodes.list() if node.state is not NodeState.DEAD}
            if alive == expected:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"after {timeout:g} s the cluster has {len(alive)} nodes instead of {len(expected)}")
            time.sleep(0.05)

    def shutdown(self) -> None:
        """End all nodes and this process's session on them. Idempotent."""
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        shoal.shutdown()
        nodes, self.head_node, self.worker_nodes = self.list_all_nodes(), None, []
        local.stop(nodes, _STOP_GRACE_S)
        keeper.kill()
        keeper.wait()
        shutil.rmtree(self._root, ignore_errors=True)
        if self._token_before is None:
            os.environ.pop(TOKEN_VARIABLE, None)
        atexit.unregister(self.shutdown)


class AutoscalingCluster:
    """A cluster of this machine to which an autoscaler adds nodes, for tests; as Ray's."""

    def __init__(
        self,
        head_resources: dict[str, float],
        worker_node_types: dict[str, dict[str, Any]],
        autoscaler_v2: bool = True,
        *,
        max_workers: int = 100,
        idle_timeout_minutes: float = 5.0,
        upscaling_interval_s: float = 0.2,
    ) -> None:
        """``head_resources``: of the head, "CPU" and others by name. ``worker_node_types``: by name, each with
        ``resources`` and, if wanted, ``labels``, ``min_workers`` (0) and ``max_workers`` (1); ``node_config`` may be
        there, and empty. ``autoscaler_v2`` means nothing here: there is one autoscaler.

        Raises: ValueError for other keys.
        """
        self._head_resources = dict(head_resources)
        self._types = {name: _node_type(name, given) for name, given in worker_node_types.items()}
        self._flags = {
            "max-nodes": max_workers,
            "idle-timeout-s": 60 * idle_timeout_minutes,
            "interval-s": upscaling_interval_s,
        }
        self._cluster: Cluster | None = None
        self._autoscaler: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Raises: RuntimeError before ``start``."""
        if self._cluster is None:
            raise RuntimeError("the cluster has not been started: call start()")
        return self._cluster.address

    def start(self, _system_config: dict[str, Any] | None = None) -> None:
        """Raises: RuntimeError (it runs, or the autoscaler is not installed)."""
        refuse("_system_config", _system_config, (None, {}), "it is for Ray's own tests")
        if self._cluster is not None:
            raise RuntimeError("the cluster has been started already")
        if importlib.util.find_spec("shoal_autoscaler") is None:
            raise RuntimeError("the autoscaler is not installed: pip install shoal[autoscaler]")
        amounts = dict(self._head_resources)
        known = {"num_cpus": amounts.pop("CPU", 0), "num_gpus": amounts.pop("GPU", 0)}
        if "object_store_memory" in amounts:
            known["object_store_memory"] = int(amounts.pop("object_store_memory"))
        patience = {"SHOAL_RAYLET_INFEASIBLE_GRACE_S": str(_AUTOSCALING_GRACE_S)}
        cluster = self._cluster = Cluster(
            initialize_head=True,
            head_node_args={**known, "resources": amounts, "env_vars": patience},
            _gcs_flags={"infeasible_grace_s": _AUTOSCALING_GRACE_S},
        )
        types = cluster.directory / "node-types.json"
        types.write_text(json.dumps(self._types))
        flags = [f"--{name}={value}" for name, value in self._flags.items()]
        flags += [f"--node-types={types}", "--provider=processes", f"--gcs-address={cluster.address}"]
        with open(cluster.directory / "autoscaler.log", "wb") as log:
            self._autoscaler = subprocess.Popen(
                interpreter("shoal_autoscaler", *flags),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**environment(), **patience, TOKEN_VARIABLE: os.environ[TOKEN_VARIABLE]},
            )

    def shutdown(self) -> None:
        """End the autoscaler, all nodes, and this process's session on them. Idempotent."""
        cluster, self._cluster = self._cluster, None
        autoscaler, self._autoscaler = self._autoscaler, None
        shoal.shutdown()
        if autoscaler is not None:
            autoscaler.terminate()
            autoscaler.wait()
        if cluster is not None:
            cluster.shutdown()


def _node_type(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """As the autoscaler reads it."""
    left = dict(given)
    made = {
        "resources": left.pop("resources"),
        "labels": left.pop("labels", {}),
        "min_nodes": left.pop("min_workers", 0),
        "max_nodes": left.pop("max_workers", 1),
    }
    refuse("node_config", left.pop("node_config", {}), (None, {}), "nodes are processes of this machine")
    if left:
        raise ValueError(f"worker node type {name!r} has {', '.join(left)}, which means nothing here")
    return made


def _keep(owner: int, root: Path) -> None:
    """End the nodes when the process that made the cluster has ended without doing so."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # Ctrl-C is for the owner
    if os.getppid() == owner:
        await_pid(owner)
    local.stop(local.recorded_nodes(root), grace_s=None)
    shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    _keep(int(sys.argv[1]), Path(sys.argv[2]))
