"""Which node takes which bundle of a placement group. Pure.

PACK and SPREAD are wishes: as few nodes as can be found, or as many. STRICT_PACK and STRICT_SPREAD are kept or there is
no plan. Bundles for which few nodes come into question are placed first, large ones before small ones. That finds
STRICT_PACK and STRICT_SPREAD plans whenever there is one, and the others unless the nodes are filled to the brim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shoal_common.placement.labels import Selector, unmet
from shoal_common.placement.resources import ResourceSet
from shoal_common.states import PlacementStrategy


@dataclass(frozen=True, slots=True)
class Need:
    """Of one bundle."""

    resources: ResourceSet
    selector: Selector = ()


@dataclass(slots=True)
class Candidate:
    """A node that may take bundles."""

    node_id: bytes
    #: What may be reserved there; shrinks while it is planned with.
    room: ResourceSet
    labels: Mapping[str, str]

    def fits(self, need: Need) -> bool:
        return need.resources.fits_in(self.room) and not unmet(need.selector, self.labels)

    def times(self, resources: ResourceSet) -> int:
        """How often they would fit."""
        return min((self.room[name] // grains for name, grains in resources.grains.items()), default=0)


def plan(
    strategy: PlacementStrategy, needs: Mapping[int, Need], placed: Mapping[int, bytes], nodes: Sequence[Candidate]
) -> dict[int, bytes] | None:
    """The node of each bundle in ``needs``; ``placed``: those of its group that have one. None: there is no room."""
    if strategy is PlacementStrategy.STRICT_SPREAD:
        return _each_its_own(needs, [node for node in nodes if node.node_id not in placed.values()])
    if strategy is not PlacementStrategy.SPREAD:
        allowed = [node for node in nodes if not placed or node.node_id in placed.values()]
        together = _on_one(needs, allowed)
        if together is not None or strategy is PlacementStrategy.STRICT_PACK:
            return together
    return _one_by_one(needs, placed, nodes, pack=strategy is PlacementStrategy.PACK)


def _on_one(needs: Mapping[int, Need], nodes: Sequence[Candidate]) -> dict[int, bytes] | None:
    """On the node that they fill best, so that large rooms stay for large groups."""
    resources = ResourceSet.sum(need.resources for need in needs.values())
    selector = tuple({rule for need in needs.values() for rule in need.selector})
    fitting = [node for node in nodes if node.fits(Need(resources, selector))]
    if not fitting:
        return None
    best = min(fitting, key=lambda node: (node.times(resources), node.node_id))
    return dict.fromkeys(needs, best.node_id)


def _one_by_one(
    needs: Mapping[int, Need], placed: Mapping[int, bytes], nodes: Sequence[Candidate], *, pack: bool
) -> dict[int, bytes] | None:
    bundles = {node.node_id: list(placed.values()).count(node.node_id) for node in nodes}
    plan: dict[int, bytes] = {}
    for index in _hardest_first(needs, nodes):
        need = needs[index]
        fitting = [node for node in nodes if node.fits(need)]
        if not fitting:
            return None

        def rank(node: Candidate, need: Need = need) -> tuple[int, int, bytes]:
            own = bundles[node.node_id]
            return (-bool(own) if pack else own, -node.times(need.resources), node.node_id)

        node = min(fitting, key=rank)
        node.room -= need.resources
        bundles[node.node_id] += 1
        plan[index] = node.node_id
    return plan


def _each_its_own(needs: Mapping[int, Need], nodes: Sequence[Candidate]) -> dict[int, bytes] | None:
    """A matching of bundles and nodes: who comes later may push an earlier one on to another node."""
    taken: dict[bytes, int] = {}

    def place(index: int, tried: set[bytes]) -> bool:
        need = needs[index]
        for node in sorted(nodes, key=lambda node: (-node.times(need.resources), node.node_id)):
            if node.node_id in tried or not node.fits(need):
                continue
            tried.add(node.node_id)
            if node.node_id not in taken or place(taken[node.node_id], tried):
                taken[node.node_id] = index
                return True
        return False

    if len(needs) > len(nodes) or not all(place(index, set()) for index in _hardest_first(needs, nodes)):
        return None
    return {index: node_id for node_id, index in taken.items()}


def _hardest_first(needs: Mapping[int, Need], nodes: Sequence[Candidate]) -> list[int]:
    choices = {index: [node for node in nodes if node.fits(need)] for index, need in needs.items()}

    def ease(index: int) -> tuple[int, int, int]:
        times = sum(node.times(needs[index].resources) for node in choices[index])
        return len(choices[index]), times, index

    return sorted(needs, key=ease)
