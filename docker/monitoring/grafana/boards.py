"""Writes the board of the cluster, ``boards/cluster.json``: one line here is one panel there.

python docker/monitoring/grafana/boards.py [--check]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

BOARD = Path(__file__).parent / "boards" / "cluster.json"
_WIDTH, _HEIGHT, _COLUMNS = 8, 7, 3

#: Title, unit, and (expression, legend) of each line.
PANELS: list[tuple[str, str, list[tuple[str, str]]]] = [
    ("Nodes", "short", [("max by (state) (shoal_nodes)", "{{state}}")]),
    ("Actors", "short", [('max by (state) (shoal_actors{state!="dead"})', "{{state}}")]),
    ("Tasks", "short", [('max by (state) (shoal_tasks{state!~"finished|failed"})', "{{state}}")]),
    ("Leases waited for", "short", [("shoal_node_queued_leases", "{{instance}}")]),
    ("Leases granted", "short", [("shoal_node_granted_leases", "{{instance}}")]),
    ("Mean duration of tasks", "s", [("shoal_node_mean_task_seconds", "{{instance}}")]),
    (
        "CPUs, logical",
        "short",
        [
            ('sum(shoal_node_resources{name="CPU",state="used"})', "used"),
            ('sum(shoal_node_resources{name="CPU"})', "all"),
        ],
    ),
    ("CPU of the machines", "percent", [("ray_node_cpu_utilization", "{{instance}}")]),
    ("Memory of the machines", "percentunit", [("ray_node_mem_used_host / ray_node_mem_total_host", "{{instance}}")]),
    ("Object store", "percentunit", [("shoal_node_store_used_bytes / shoal_node_store_bytes", "{{instance}}")]),
    ("Objects", "short", [("shoal_node_store_objects", "{{instance}}")]),
    (
        "Spilled",
        "bytes",
        [
            ("shoal_node_spilled_bytes", "{{instance}}"),
            ("rate(shoal_node_restored_bytes_total[1m])", "restored a second"),
        ],
    ),
    ("Memory by what runs", "bytes", [("sum by (Component) (ray_component_rss_bytes)", "{{Component}}")]),
    ("CPU by what runs", "percent", [("sum by (Component) (ray_component_cpu_percentage)", "{{Component}}")]),
    (
        "Workers that ended, a minute",
        "short",
        [("60 * sum by (kind) (rate(shoal_node_workers_ended_total[1m]))", "{{kind}}")],
    ),
    (
        "Network",
        "Bps",
        [
            ("ray_node_network_receive_speed", "{{instance}} in"),
            ("ray_node_network_send_speed", "{{instance}} out"),
        ],
    ),
    ("Disk free", "bytes", [("ray_node_disk_free", "{{instance}}")]),
    (
        "Blobs through objectstores",
        "Bps",
        [
            ("sum(rate(shoal_objectstore_stored_bytes_total[1m]))", "stored"),
            ("sum(rate(shoal_objectstore_read_bytes_total[1m]))", "read"),
        ],
    ),
    ("Placement groups", "short", [('max by (state) (shoal_placement_groups{state!="removed"})', "{{state}}")]),
    ("Placements a second", "short", [("sum(rate(shoal_scheduler_placements_total[1m]))", "placed")]),
    ("Memory of services", "bytes", [("process_resident_memory_bytes", "{{job}} {{instance}}")]),
]


def panel(number: int, title: str, unit: str, lines: list[tuple[str, str]]) -> dict[str, Any]:
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": title,
        "datasource": {"type": "prometheus", "uid": "prometheus"},
        "gridPos": {
            "x": number % _COLUMNS * _WIDTH,
            "y": number // _COLUMNS * _HEIGHT,
            "w": _WIDTH,
            "h": _HEIGHT,
        },
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + at), "expr": expression, "legendFormat": legend}
            for at, (expression, legend) in enumerate(lines)
        ],
    }


def board() -> str:
    document = {
        "uid": "shoal-cluster",
        "title": "Shoal",
        "schemaVersion": 39,
        "refresh": "5s",
        "time": {"from": "now-30m", "to": "now"},
        "panels": [panel(number, *each) for number, each in enumerate(PANELS)],
    }
    return json.dumps(document, indent=1) + "\n"


def main() -> int:
    if "--check" in sys.argv:
        return int(BOARD.read_text() != board())
    BOARD.write_text(board())
    return 0


if __name__ == "__main__":
    sys.exit(main())
