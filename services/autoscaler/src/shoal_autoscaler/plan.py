"""Which nodes to start and which to end: what waits, packed into what is there. Pure.

All that waits is placed on paper: first on free room, then on nodes that are starting, then on nodes that would have to
be started, of the kind that the request fills best. Placement groups are placed whole or not at all. The nodes that the
paper adds are started; of those that it leaves empty, the ones that have been idle for long are drained, and ended once
they are empty in truth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shoal_common.placement.labels import Selector, unmet
from shoal_common.placement.resources import ResourceSet
from shoal_common.states import PlacementStrategy

#: Which node is whose: the name under which the provider started it.
PROVIDER_LABEL = "shoal.io/provider-id"


@dataclass(frozen=True, slots=True)
class NodeType:
    """A kind of node that the provider can start."""

    name: str
    resources: ResourceSet
    labels: Mapping[str, str] = field(default_factory=dict)
    min_nodes: int = 0
    max_nodes: int = 1


@dataclass(frozen=True, slots=True)
class Node:
    """One that is in the cluster."""

    node_id: bytes
    total: ResourceSet
    available: ResourceSet
    labels: Mapping[str, str] = field(default_factory=dict)
    #: Nothing has run or waited there since, in seconds of the caller's clock; None = something does.
    idle_since: float | None = None
    draining: bool = False

    @property
    def provider_id(self) -> str:
        """ "" = it is not the autoscaler's."""
        return self.labels.get(PROVIDER_LABEL, "")


@dataclass(frozen=True, slots=True)
class Started:
    """One that the provider has started, whether or not it is in the cluster yet."""

    provider_id: str
    type_name: str
    #: By the caller's clock, in seconds.
    since: float


@dataclass(frozen=True, slots=True)
class Demand:
    """``count`` alike requests, each for one node that meets one of ``selectors`` (none = any node)."""

    resources: ResourceSet
    count: int = 1
    selectors: tuple[Selector, ...] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """A placement group that has no place: its bundles that are not placed."""

    strategy: PlacementStrategy
    bundles: tuple[tuple[ResourceSet, Selector], ...]


@dataclass(frozen=True, slots=True)
class View:
    nodes: Sequence[Node] = ()
    started: Sequence[Started] = ()
    demands: Sequence[Demand] = ()
    groups: Sequence[Group] = ()
    #: What a program wants room for at once, busy or not (``request_resources``).
    requested: Sequence[Demand] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    #: Of nodes that the autoscaler starts, of all kinds together.
    max_nodes: int = 100
    #: A node that has been idle for so long is ended, in seconds.
    idle_timeout_s: float = 300.0
    #: One that is not in the cluster so long after its start never will be, in seconds.
    boot_timeout_s: float = 300.0


@dataclass(slots=True)
class Plan:
    #: Kinds of nodes to start, one entry a node.
    launch: list[str] = field(default_factory=list)
    #: Ids of nodes that are to be drained.
    drain: list[bytes] = field(default_factory=list)
    #: What the provider is to end: drained and empty, or never arrived.
    terminate: list[str] = field(default_factory=list)
    #: What no node that could be started would ever hold, for humans.
    unmet: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Room:
    """A node on paper."""

    labels: Mapping[str, str]
    free: ResourceSet
    #: Of a node that is there; empty = it is starting, or would have to be started.
    node_id: bytes = b""
    used: bool = False

    def take(self, resources: ResourceSet, selectors: Sequence[Selector]) -> bool:
        if not resources.fits_in(self.free) or all(unmet(each, self.labels) for each in selectors or ((),)):
            return False
        self.free -= resources
        self.used = True
        return True


class _Paper:
    """Nodes that are there, are starting, or would have to be started."""

    def __init__(self, rooms: list[_Room], types: Mapping[str, NodeType], counts: dict[str, int], room: int) -> None:
        self.rooms = rooms
        self._types = types
        self._counts = counts
        self._room = room
        self.launched: list[str] = []

    def place(self, resources: ResourceSet, selectors: Sequence[Selector], apart: set[int] | None = None) -> bool:
        """``apart``: the rooms (by number) that must not be used; the one that is used is added."""
        for number, room in enumerate(self.rooms):
            if (apart is None or number not in apart) and room.take(resources, selectors):
                if apart is not None:
                    apart.add(number)
                return True
        return self._place_on_new(resources, selectors, apart)

    def _place_on_new(self, resources: ResourceSet, selectors: Sequence[Selector], apart: set[int] | None) -> bool:
        kind = min(
            (each for each in self._types.values() if self.may_have(each) and _holds(each, resources, selectors)),
            key=lambda each: _waste(each.resources, resources),
            default=None,
        )
        if kind is None:
            return False
        self.add(kind)
        taken = self.rooms[-1].take(resources, selectors)
        assert taken, kind
        if apart is not None:
            apart.add(len(self.rooms) - 1)
        return True

    def may_have(self, kind: NodeType) -> bool:
        return self._counts.get(kind.name, 0) < kind.max_nodes and self._room > 0

    def add(self, kind: NodeType) -> None:
        """Another one of this kind."""
        self._counts[kind.name] = self._counts.get(kind.name, 0) + 1
        self._room -= 1
        self.launched.append(kind.name)
        self.rooms.append(_Room(kind.labels, kind.resources))

    def copy(self) -> _Paper:
        copied = self.beside([_Room(room.labels, room.free, room.node_id, room.used) for room in self.rooms])
        copied.launched = list(self.launched)
        return copied

    def beside(self, rooms: list[_Room]) -> _Paper:
        """Another one, which may start as many nodes as this one still may."""
        return _Paper(rooms, self._types, dict(self._counts), self._room)


def plan(view: View, types: Mapping[str, NodeType], limits: Limits, now: float) -> Plan:
    """``now``: by the clock of ``view``."""
    made = Plan()
    arrived = {node.provider_id for node in view.nodes if node.provider_id}
    late = {
        each.provider_id
        for each in view.started
        if each.provider_id not in arrived and now - each.since > limits.boot_timeout_s
    }
    kept = [each for each in view.started if each.provider_id not in late]
    _end_drained(view, made)
    made.terminate += sorted(late)

    counts: dict[str, int] = {}
    for each in kept:
        counts[each.type_name] = counts.get(each.type_name, 0) + 1
    starting = [types[each.type_name] for each in kept if each.provider_id not in arrived and each.type_name in types]
    staying = [node for node in view.nodes if not node.draining]
    rooms = [_Room(node.labels, node.available, node.node_id) for node in staying]
    rooms += [_Room(kind.labels, kind.resources) for kind in starting]
    paper = _Paper(rooms, types, counts, limits.max_nodes - len(kept))
    for kind in types.values():
        while counts.get(kind.name, 0) < kind.min_nodes and paper.may_have(kind):
            paper.add(kind)
    paper = _place_groups(view.groups, paper, types, made)
    _place_demands(view.demands, paper, types, made)
    needed = _place_requested(view.requested, paper, staying, starting, types, made)
    made.launch = paper.launched
    _drain_idle(staying, paper, needed, view, types, limits, now, made)
    return made


def _end_drained(view: View, made: Plan) -> None:
    there = {each.provider_id for each in view.started}
    for node in view.nodes:
        if node.draining and node.provider_id in there and node.idle_since is not None:
            made.terminate.append(node.provider_id)


def _place_groups(groups: Sequence[Group], paper: _Paper, types: Mapping[str, NodeType], made: Plan) -> _Paper:
    for group in groups:
        tried = paper.copy()
        if _place_group(group, tried):
            paper = tried
        elif not _ever(group, types):
            shapes = ", ".join(_text(resources) for resources, _ in group.bundles)
            made.unmet.append(f"a placement group ({group.strategy.name}) of {shapes}")
    return paper


def _place_group(group: Group, paper: _Paper) -> bool:
    if group.strategy is PlacementStrategy.STRICT_PACK:
        # One selector for all of them: each bundle must be met by the node that holds them together.
        together = ResourceSet.sum(resources for resources, _ in group.bundles)
        rules = tuple(rule for _, selector in group.bundles for rule in selector)
        return paper.place(together, (rules,))
    apart: set[int] | None = set() if group.strategy is PlacementStrategy.STRICT_SPREAD else None
    bundles = sorted(group.bundles, key=lambda bundle: -_size(bundle[0]))
    return all(paper.place(resources, (selector,), apart) for resources, selector in bundles)


def _place_demands(demands: Sequence[Demand], paper: _Paper, types: Mapping[str, NodeType], made: Plan) -> None:
    for demand in sorted(demands, key=lambda each: -_size(each.resources)):
        placed = 0
        while placed < demand.count and paper.place(demand.resources, demand.selectors):
            placed += 1
        if placed < demand.count and not any(
            _holds(kind, demand.resources, demand.selectors) for kind in types.values()
        ):
            made.unmet.append(f"{demand.count - placed} × {_text(demand.resources)}")


def _place_requested(
    requested: Sequence[Demand],
    paper: _Paper,
    staying: Sequence[Node],
    starting: Sequence[NodeType],
    types: Mapping[str, NodeType],
    made: Plan,
) -> set[bytes]:
    """Whether busy or not: on whole nodes. Returns the nodes that are needed for it, and so stay."""
    if not requested:
        return set()
    whole = [_Room(node.labels, node.total, node.node_id) for node in staying]
    whole += [_Room(kind.labels, kind.resources) for kind in (*starting, *(types[n] for n in paper.launched))]
    beside = paper.beside(whole)
    _place_demands(requested, beside, types, made)
    paper.launched += beside.launched
    return {room.node_id for room in whole if room.used and room.node_id}


def _drain_idle(
    staying: Sequence[Node],
    paper: _Paper,
    needed: set[bytes],
    view: View,
    types: Mapping[str, NodeType],
    limits: Limits,
    now: float,
    made: Plan,
) -> None:
    kinds = {each.provider_id: each.type_name for each in view.started}
    left: dict[str, int] = {}
    for node in staying:
        if node.provider_id in kinds:
            left[kinds[node.provider_id]] = left.get(kinds[node.provider_id], 0) + 1
    used = {room.node_id for room in paper.rooms if room.used}
    for node in sorted(staying, key=lambda node: node.idle_since if node.idle_since is not None else now):
        kind = kinds.get(node.provider_id)
        if kind is None or node.idle_since is None or node.node_id in used | needed:
            continue
        least = types[kind].min_nodes if kind in types else 0
        if now - node.idle_since >= limits.idle_timeout_s and left[kind] > least:
            left[kind] -= 1
            made.drain.append(node.node_id)


def _holds(kind: NodeType, resources: ResourceSet, selectors: Sequence[Selector]) -> bool:
    return resources.fits_in(kind.resources) and any(not unmet(each, kind.labels) for each in selectors or ((),))


def _ever(group: Group, types: Mapping[str, NodeType]) -> bool:
    """Whether nodes of these kinds could hold it, as many as it takes."""
    if group.strategy is PlacementStrategy.STRICT_PACK:
        together = ResourceSet.sum(resources for resources, _ in group.bundles)
        rules = tuple(rule for _, selector in group.bundles for rule in selector)
        return any(_holds(kind, together, (rules,)) for kind in types.values())
    return all(
        any(_holds(kind, resources, (selector,)) for kind in types.values()) for resources, selector in group.bundles
    )


def _waste(offered: ResourceSet, wanted: ResourceSet) -> tuple[int, float]:
    """Kinds of resources that nobody has asked for come first (a GPU for a task without); then what is left over."""
    extra = sum(name not in wanted.grains for name in offered.grains if name not in ("CPU", "memory"))
    left = sum(1 - wanted[name] / grains for name, grains in offered.grains.items())
    return extra, left


def _size(resources: ResourceSet) -> int:
    return sum(resources.grains.values())


def _text(resources: ResourceSet) -> str:
    return str(resources.to_units() or "nothing")
