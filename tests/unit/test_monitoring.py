"""What boards and alerts name is what the services tell."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from shoal_autoscaler import measurements as autoscaler
from shoal_common.service import process_metrics
from shoal_common.service.metrics import exposed_name
from shoal_dashboard.rest import metrics as dashboard
from shoal_gcs import measurements as gcs
from shoal_objectstore import measurements as objectstore
from shoal_raylet import measurements as raylet
from shoal_scheduler import measurements as scheduler

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "docker" / "monitoring"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.monitoring.yaml").read_text())["services"]

MODULES = (process_metrics, gcs, scheduler, objectstore, raylet, dashboard, autoscaler)
TOLD = {exposed_name(family) for module in MODULES for family in module.FAMILIES}
#: Of Prometheus itself.
OWN = {"up"}
#: What is no metric in an expression: functions and words of its language.
_WORDS = "and or unless by without on sum max min rate increase delta deriv changes vector min_over_time bool".split()


def names(expression: str) -> set[str]:
    """The metrics in it."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\"[^\"]*\"|(by|without|on)\s*\([^)]*\)", " ", expression)
    return set(re.findall(r"[a-zA-Z_:][a-zA-Z0-9_:]*", bare)) - set(_WORDS)


def rules() -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]:
        yield from group["rules"]


def board() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((MONITORING / "grafana" / "boards" / "cluster.json").read_text())
    return found


EXPRESSIONS = [rule["expr"] for rule in rules()] + [
    target["expr"] for panel in board()["panels"] for target in panel["targets"]
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_metric_that_is_asked_for_is_told(expression: str) -> None:
    assert names(expression) and names(expression) <= TOLD | OWN


def test_the_names_of_rays_boards_are_told() -> None:
    """OPERATE: those of its default board, but for GPUs, cgroups and its autoscaler."""
    wanted = """ray_tasks ray_actors ray_resources ray_object_store_memory ray_placement_groups
        ray_memory_manager_worker_eviction_total ray_node_manager_unexpected_worker_failure_total
        ray_node_cpu_utilization ray_node_cpu_count ray_node_mem_used_host ray_node_mem_total_host
        ray_node_mem_shared_bytes ray_node_disk_usage ray_node_disk_free ray_node_disk_io_read_speed
        ray_node_disk_io_write_speed ray_node_network_receive_speed ray_node_network_send_speed
        ray_component_cpu_percentage ray_component_rss_bytes ray_component_shared_bytes"""
    assert set(wanted.split()) <= TOLD


def test_there_is_an_alert_for_each_thing_that_goes_wrong() -> None:
    assert {rule["alert"] for rule in rules()} >= {
        "ShoalNodeLost",
        "ShoalServiceDown",
        "ShoalStoreFull",
        "ShoalQueueGrowing",
        "ShoalFailOver",
        "ShoalEventsLost",
    }
    for rule in rules():
        assert rule["labels"]["severity"] and rule["annotations"]["summary"] and rule["annotations"]["description"]


def test_the_board_is_what_its_list_of_panels_says() -> None:
    path = MONITORING / "grafana" / "boards.py"
    spec = importlib.util.spec_from_file_location("boards", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.BOARD.read_text() == module.board(), f"run python {path.relative_to(ROOT)}"


def test_prometheus_looks_at_every_service() -> None:
    scraped = {job["job_name"] for job in yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]}
    assert scraped == {"gcs", "scheduler", "objectstore", "raylet", "dashboard", "autoscaler"}


@pytest.mark.parametrize("name", COMPOSE)
def test_containers_have_no_rights_and_files_that_are_there(name: str) -> None:
    container = COMPOSE[name]
    assert container["read_only"] and container["cap_drop"] == ["ALL"] and container["user"] == "1000:1000"
    assert all(port.startswith("127.0.0.1:") for port in container["ports"])
    for volume in container["volumes"]:
        source = volume.split(":")[0]
        assert volume.endswith(":ro") and (source == "token" or (ROOT / source).exists())
