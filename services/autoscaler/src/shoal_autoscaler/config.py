"""What the autoscaler is told at its start."""

# ruff: noqa: RUF009 - setting() makes a dataclass field
from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from shoal_autoscaler.plan import Limits, NodeType
from shoal_common.bus.connect import BusConfig
from shoal_common.placement.labels import check_labels
from shoal_common.placement.resources import ResourceSet
from shoal_common.service.config import ConfigError, setting
from shoal_common.service.measured import MeasuredConfig

PROVIDERS = ("docker", "processes")


@dataclass(frozen=True, kw_only=True)
class AutoscalerConfig(BusConfig, MeasuredConfig):
    """Shoal's autoscaler: starts nodes for what waits, and ends those that nobody uses."""

    SERVICE: ClassVar[str] = "autoscaler"

    gcs_address: str = setting(doc="host:port of each GCS, separated by commas")
    provider: str = setting(doc="what starts nodes: docker or processes")
    node_types: Path = setting(
        doc='JSON file of the kinds of nodes: {"small": {"resources": {"CPU": 2}, "labels": {}, "min_nodes": 0, '
        '"max_nodes": 8}}'
    )
    max_nodes: int = setting(100, doc="nodes that it starts at most, of all kinds together", minimum=0)
    idle_timeout_s: float = setting(
        300.0, doc="a node that has been idle for so long is drained and ended", unit="seconds", minimum=0.0
    )
    boot_timeout_s: float = setting(
        300.0, doc="one that is not in the cluster so long after its start is ended", unit="seconds", minimum=1.0
    )
    interval_s: float = setting(1.0, doc="it looks so often", unit="seconds", minimum=0.05)
    docker_template: str = setting(
        "raylet", doc="docker: nodes are made like the containers of this service of the Compose project"
    )
    docker_project: str = setting("", doc="docker: the Compose project; empty = that of this container")

    @property
    def limits(self) -> Limits:
        return Limits(self.max_nodes, self.idle_timeout_s, self.boot_timeout_s)


def read_node_types(path: Path) -> dict[str, NodeType]:
    """Raises: ConfigError."""
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"--node-types {path} cannot be read: {error}") from error
    if not isinstance(document, dict) or not document:
        raise ConfigError(f"--node-types {path} must be a JSON object with a kind of nodes at least")
    return {name: _node_type(name, given) for name, given in document.items()}


def _node_type(name: str, given: Any) -> NodeType:
    known = {"resources", "labels", "min_nodes", "max_nodes"}
    if not isinstance(given, dict) or given.keys() - known:
        raise ConfigError(f"node type {name!r} must be an object of {', '.join(sorted(known))}")
    resources, labels = given.get("resources"), given.get("labels", {})
    if not isinstance(resources, dict) or not resources or not all(map(_is_amount, resources.values())):
        raise ConfigError(f'node type {name!r} needs "resources", an object of amounts above 0')
    least, most = given.get("min_nodes", 0), given.get("max_nodes", 1)
    if not all(type(each) is int for each in (least, most)) or not 0 <= least <= most:
        raise ConfigError(f"node type {name!r} needs whole numbers, 0 ≤ min_nodes ≤ max_nodes")
    try:
        check_labels(labels)
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"labels of node type {name!r}: {error}") from error
    return NodeType(name, ResourceSet.of(resources), labels, least, most)


def _is_amount(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < math.inf
