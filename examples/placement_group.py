"""Reserve resources for a team of actors that is of use only when all of it runs.

A placement group is a list of bundles of resources. All of them are reserved, or none: two teams that need more than
half of the cluster each run one after the other, instead of each holding half of what both need.
"""

from __future__ import annotations

import shoal as ray
from shoal.util.placement_group import placement_group, placement_group_table, remove_placement_group
from shoal.util.scheduling_strategies import PlacementGroupSchedulingStrategy

MEMBERS = 4


@ray.remote(num_cpus=0.25)
class Walker:
    """Knows one share of a ring of cells; in each step every cell becomes the mean of its neighbours."""

    def __init__(self, cells: list[float]) -> None:
        self.cells = cells

    def edges(self) -> tuple[float, float]:
        return self.cells[0], self.cells[-1]

    def step(self, left: tuple[float, float], right: tuple[float, float]) -> float:
        around = [left[1], *self.cells, right[0]]
        self.cells = [(before + after) / 2 for before, after in zip(around, around[2:], strict=False)]
        return sum(self.cells)


def run(name: str) -> None:
    """``PACK`` puts the team on as few nodes as there are; ``SPREAD`` would put it on as many."""
    group = placement_group([{"CPU": 0.25}] * MEMBERS, strategy="PACK")
    ray.get(group.ready())
    nodes = set(placement_group_table(group)["bundles_to_node_id"].values())
    print(f"{name}: {group.bundle_count} bundles on {len(nodes)} node(s)")

    team = [
        Walker.options(scheduling_strategy=PlacementGroupSchedulingStrategy(group, index)).remote([index * 1.0] * 5)
        for index in range(MEMBERS)
    ]
    for _ in range(20):
        edges = [walker.edges.remote() for walker in team]
        sums = [walker.step.remote(edges[i - 1], edges[(i + 1) % MEMBERS]) for i, walker in enumerate(team)]
        total = sum(ray.get(sums))
    print(f"{name}: the cells still add up to {total:g}")
    assert abs(total - 30) < 1e-9

    # Gives the resources back; the actors in the bundles end.
    remove_placement_group(group)


def main() -> None:
    ray.init()
    for name in ("first team", "second team"):
        run(name)
    ray.shutdown()


if __name__ == "__main__":
    main()
