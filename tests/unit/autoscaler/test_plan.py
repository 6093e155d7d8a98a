"""Which nodes are started, drained and ended."""

from __future__ import annotations

import dataclasses
import random

from support.walks import walks

from shoal_autoscaler.plan import PROVIDER_LABEL, Demand, Group, Limits, Node, NodeType, Plan, Started, View, plan
from shoal_common.placement.labels import parse_selector
from shoal_common.placement.resources import ResourceSet
from shoal_common.states import PlacementStrategy

SMALL = NodeType("small", ResourceSet.of({"CPU": 2}), max_nodes=8)
LARGE = NodeType("large", ResourceSet.of({"CPU": 8}), max_nodes=2)
GPU = NodeType("gpu", ResourceSet.of({"CPU": 4, "GPU": 1}), {"kind": "gpu"}, max_nodes=2)
TYPES = {each.name: each for each in (SMALL, LARGE, GPU)}
LIMITS = Limits(max_nodes=10, idle_timeout_s=60, boot_timeout_s=100)


def demand(count: int = 1, **amounts: float) -> Demand:
    return Demand(ResourceSet.of(amounts), count)


def node(name: str, kind: NodeType = SMALL, *, free: float | None = None, idle_since: float | None = None) -> Node:
    available = kind.resources if free is None else ResourceSet.of({"CPU": free})
    labels = {**kind.labels, PROVIDER_LABEL: name} if name else {}
    return Node(name.encode() or b"head", kind.resources, available, labels, idle_since)


def started(*names: str, kind: NodeType = SMALL, since: float = 0.0) -> list[Started]:
    return [Started(name, kind.name, since) for name in names]


def planned(view: View, types: dict[str, NodeType] = TYPES, limits: Limits = LIMITS, now: float = 0.0) -> Plan:
    return plan(view, types, limits, now)


def test_nothing_waits() -> None:
    assert planned(View(nodes=[node("")])) == Plan()


def test_as_many_as_are_needed_of_the_kind_that_is_filled_best() -> None:
    assert planned(View(demands=[demand(5, CPU=1)])).launch == ["small"] * 3
    assert planned(View(demands=[demand(1, CPU=7)])).launch == ["large"]
    assert planned(View(demands=[demand(1, CPU=1, GPU=1)])).launch == ["gpu"]


def test_room_that_is_there_or_starting_comes_first() -> None:
    view = View([node("", free=1)], started("a"), [demand(4, CPU=1)])
    assert planned(view).launch == ["small"], "one on the head, two on what starts, one is left"


def test_a_kind_and_all_together_have_bounds() -> None:
    types = {"small": dataclasses.replace(SMALL, max_nodes=3)}
    assert planned(View(demands=[demand(100, CPU=1)]), types).launch == ["small"] * 3
    assert planned(View(demands=[demand(100, CPU=1)]), limits=Limits(max_nodes=2)).launch == ["small"] * 2
    view = View(started=started("a", "b"), demands=[demand(100, CPU=1)])
    assert planned(view, types).launch == ["small"], "those that start count"


def test_what_no_kind_could_hold_is_told() -> None:
    made = planned(View(demands=[demand(2, CPU=99), demand(1, CPU=1)]))
    assert (made.launch, made.unmet) == (["small"], ["2 × {'CPU': 99.0}"])
    busy = planned(View(demands=[demand(100, CPU=8)]))
    assert (busy.launch, busy.unmet) == (["large"] * 2, []), "it waits for its turn"


def test_labels() -> None:
    wanted = Demand(ResourceSet.of({"CPU": 1}), 1, (parse_selector({"kind": "gpu"}),))
    assert planned(View([node("")], demands=[wanted])).launch == ["gpu"]
    other = Demand(ResourceSet.of({"CPU": 1}), 1, (parse_selector({"kind": "tpu"}),))
    assert planned(View(demands=[other])).unmet == ["1 × {'CPU': 1.0}"]


def group(strategy: PlacementStrategy, count: int, **amounts: float) -> Group:
    return Group(strategy, ((ResourceSet.of(amounts), ()),) * count)


def test_groups_are_placed_whole() -> None:
    assert planned(View(groups=[group(PlacementStrategy.STRICT_PACK, 4, CPU=2)])).launch == ["large"]
    assert planned(View(groups=[group(PlacementStrategy.STRICT_SPREAD, 3, CPU=1)])).launch == ["small"] * 3
    assert planned(View(groups=[group(PlacementStrategy.PACK, 4, CPU=1)])).launch == ["small"] * 2
    no_room = planned(View(groups=[group(PlacementStrategy.STRICT_SPREAD, 4, CPU=4)]))
    assert (no_room.launch, no_room.unmet) == (["large", "large", "gpu", "gpu"], [])
    never = planned(View(groups=[group(PlacementStrategy.STRICT_PACK, 2, CPU=5)]))
    assert (never.launch, never.unmet) == ([], ["a placement group (STRICT_PACK) of {'CPU': 5.0}, {'CPU': 5.0}"])
    half = planned(View(groups=[group(PlacementStrategy.STRICT_SPREAD, 5, CPU=4)]))
    assert half.launch == [], "five of four: not a part of it either"


def test_what_is_idle_for_long_is_drained_the_longest_first() -> None:
    nodes = [node(""), node("a", idle_since=0), node("b", idle_since=30), node("c", idle_since=1), node("d")]
    view = View(nodes, started("a", "b", "c", "d"))
    assert planned(view, now=59).drain == []
    assert planned(view, now=61).drain == [b"a", b"c"]
    assert planned(view, now=1000).drain == [b"a", b"c", b"b"], "the head is not the autoscaler's"
    at_least = {**TYPES, "small": dataclasses.replace(SMALL, min_nodes=3)}
    assert planned(view, at_least, now=1000).drain == [b"a"]


def test_a_node_that_what_waits_will_use_stays() -> None:
    view = View([node("a", idle_since=0), node("b", idle_since=1)], started("a", "b"), [demand(2, CPU=1)])
    assert planned(view, now=100).drain == [b"b"]


def test_a_drained_node_is_ended_when_nothing_runs_there() -> None:
    busy = dataclasses.replace(node("a", free=1), draining=True)
    empty = dataclasses.replace(node("b", idle_since=5), draining=True)
    made = planned(View([busy, empty], started("a", "b"), [demand(1, CPU=1)]), now=6)
    assert (made.terminate, made.drain) == (["b"], [])
    assert made.launch == ["small"], "nothing new goes to what is about to leave"


def test_one_that_never_arrives_is_ended_and_another_one_is_tried() -> None:
    view = View(started=started("a"), demands=[demand(1, CPU=1)])
    assert planned(view, now=99) == Plan()
    made = planned(view, now=101)
    assert (made.terminate, made.launch) == (["a"], ["small"])


def test_the_least_number_is_there_without_demand() -> None:
    types = {"small": dataclasses.replace(SMALL, min_nodes=2)}
    assert planned(View(), types).launch == ["small"] * 2
    assert planned(View(started=started("a")), types).launch == ["small"]


def test_requested_room_counts_busy_or_not() -> None:
    busy = node("a", free=0)
    assert planned(View([busy], started("a"), requested=[demand(2, CPU=1)])).launch == []
    assert planned(View([busy], started("a"), requested=[demand(5, CPU=1)])).launch == ["small"] * 2
    idle = node("a", idle_since=0)
    assert planned(View([idle], started("a"), requested=[demand(1, CPU=1)]), now=1000).drain == []
    together = View([busy], started("a"), [demand(2, CPU=1)], requested=[demand(4, CPU=1)])
    assert planned(together).launch == ["small"], "what is started for one counts for the other"


@walks(40)
def test_bounds_hold_whatever_comes(seed: int) -> None:
    """And a plan that is carried out asks for nothing more."""
    chance = random.Random(seed)
    types = {each.name: dataclasses.replace(each, min_nodes=chance.randrange(2)) for each in TYPES.values()}
    have = [Started(f"s{n}", chance.choice(list(types)), 0) for n in range(chance.randrange(5))]
    have = [each for n, each in enumerate(have) if sum(h.type_name == each.type_name for h in have[:n]) < 2]
    nodes = [
        dataclasses.replace(node(each.provider_id, types[each.type_name]), idle_since=chance.choice([None, 0.0]))
        for each in have
        if chance.random() < 0.7
    ]
    demands = [
        Demand(ResourceSet.of({"CPU": chance.choice([0.5, 1, 3, 20])}), chance.randrange(1, 9)) for _ in range(3)
    ]
    groups = [group(chance.choice(list(PlacementStrategy)), chance.randrange(1, 4), CPU=chance.choice([1, 3]))]
    view = View(nodes, have, demands, groups)
    made = planned(view, types, now=90)
    total = len(have) + len(made.launch)
    assert total <= max(LIMITS.max_nodes, len(have))
    for kind in types.values():
        count = sum(each.type_name == kind.name for each in have) + made.launch.count(kind.name)
        assert count <= kind.max_nodes
    after = View(nodes, [*have, *(Started(f"n{n}", name, 90) for n, name in enumerate(made.launch))], demands, groups)
    again = planned(after, types, now=90)
    assert again.launch == []
    assert set(made.drain) == set(again.drain)
