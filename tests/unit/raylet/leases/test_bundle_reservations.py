from __future__ import annotations

from collections.abc import Mapping

import pytest

from shoal_common.placement import bundles
from shoal_common.placement.resources import ResourceSet
from shoal_raylet.leases.bundle_reservations import COMMIT_WITHIN_S, BundleReservations
from shoal_raylet.leases.resource_ledger import ResourceLedger

GROUP, OTHER = b"\x01" * 16, b"\x02" * 16
ONE = ResourceSet.of({"CPU": 1})
NODE = ResourceSet.of({"CPU": 4, "disk": 1})


@pytest.fixture
def ledger() -> ResourceLedger:
    return ResourceLedger(NODE)


@pytest.fixture
def held(ledger: ResourceLedger) -> BundleReservations:
    return BundleReservations(ledger)


def test_prepared_bundles_hold_resources_that_nobody_can_use(held: BundleReservations, ledger: ResourceLedger) -> None:
    assert held.prepare(GROUP, b"r", {0: ONE, 1: ONE}, 0.0) == {}
    assert ledger.available == ResourceSet.of({"CPU": 2, "disk": 1})
    assert ledger.total == NODE
    assert held.prepare(GROUP, b"r", {0: ONE, 1: ONE}, 0.0) == {}, "a repeat"
    assert ledger.available["CPU"] == 20_000


def test_committed_bundles_are_resources_of_the_node(held: BundleReservations, ledger: ResourceLedger) -> None:
    held.prepare(GROUP, b"r", {0: ONE, 1: ONE}, 0.0)
    assert held.commit(GROUP, b"r") and held.commit(GROUP, b"r")
    assert ledger.total.to_units()[f"CPU_group_{GROUP.hex()}"] == 2
    in_first, in_any = bundles.needed(ONE, GROUP, 0), bundles.needed(ONE, GROUP, None)
    ledger.allocate(b"a", in_first)
    assert not ledger.can_hold(in_first), "its bundle is full"
    assert ledger.can_hold(in_any), "the other one is not"
    ledger.allocate(b"b", in_any)
    assert not ledger.can_hold(in_any) and not ledger.can_hold(bundles.needed(ONE, GROUP, 1))
    assert ledger.can_hold(bundles.needed(ResourceSet(), GROUP, 0)), "what needs nothing is bound to it too"
    assert not ledger.can_ever_hold(bundles.needed(ResourceSet(), OTHER, None))


def test_all_bundles_are_prepared_or_none(held: BundleReservations, ledger: ResourceLedger) -> None:
    assert held.prepare(GROUP, b"r", {0: ONE, 1: ResourceSet.of({"CPU": 4})}, 0.0) == {"CPU": 1.0}
    assert ledger.available == NODE
    assert not held.commit(GROUP, b"r")


def test_what_is_given_back_is_the_nodes_again(held: BundleReservations, ledger: ResourceLedger) -> None:
    held.prepare(GROUP, b"r", {0: ONE}, 0.0)
    held.prepare(GROUP, b"s", {1: ONE}, 0.0)
    held.prepare(OTHER, b"r", {0: ONE}, 0.0)
    held.commit(GROUP, b"r")
    held.give_back(GROUP, b"s")
    assert ledger.available["CPU"] == 20_000
    ledger.allocate(b"a", bundles.needed(ONE, GROUP, 0))
    held.give_back(GROUP, b"")
    held.give_back(GROUP, b"")
    assert ledger.total == NODE
    assert ledger.available["CPU"] == 30_000
    ledger.release(b"a")
    assert ledger.available.to_units() == {"CPU": 3, "disk": 1}, "nothing is left of the bundle when its last user ends"


def test_what_is_not_committed_in_time_is_given_up(held: BundleReservations, ledger: ResourceLedger) -> None:
    held.prepare(GROUP, b"r", {0: ONE}, 0.0)
    held.prepare(OTHER, b"r", {0: ONE}, 0.0)
    held.commit(OTHER, b"r")
    assert held.next_deadline() == COMMIT_WITHIN_S
    held.tick(COMMIT_WITHIN_S)
    assert held.next_deadline() is None
    assert not held.commit(GROUP, b"r")
    assert ledger.available["CPU"] == 30_000


def test_another_attempt_replaces_one_that_nobody_commits(held: BundleReservations, ledger: ResourceLedger) -> None:
    held.prepare(GROUP, b"r", {0: ResourceSet.of({"CPU": 3})}, 0.0)
    assert held.prepare(GROUP, b"s", {0: ResourceSet.of({"CPU": 3})}, 1.0) == {}
    assert not held.commit(GROUP, b"r")
    assert held.commit(GROUP, b"s")
    assert held.prepare(GROUP, b"t", {1: ONE}, 2.0) == {}
    assert ledger.available == ResourceSet.of({"disk": 1}) + bundles.offered(ResourceSet.of({"CPU": 3}), GROUP, 0)


def test_a_task_that_waits_in_a_bundle_lends_the_bundles_cpu(held: BundleReservations, ledger: ResourceLedger) -> None:
    held.prepare(GROUP, b"r", {0: ONE}, 0.0)
    held.commit(GROUP, b"r")
    in_bundle = bundles.needed(ONE, GROUP, 0)
    ledger.allocate(b"a", in_bundle)
    ledger.lend_cpu(b"a")
    assert ledger.can_hold(in_bundle)
    ledger.take_back_cpu(b"a")
    assert not ledger.can_hold(in_bundle)
    ledger.release(b"a")
    assert ledger.available == ledger.total - ONE


# --- devices ---


@pytest.fixture
def with_gpus() -> ResourceLedger:
    return ResourceLedger(ResourceSet.of({"GPU": 4}), {"GPU": ["4", "5", "6", "7"]})


def gpus(amount: float) -> ResourceSet:
    return ResourceSet.of({"GPU": amount})


def test_what_runs_in_a_bundle_gets_the_devices_of_that_bundle(with_gpus: ResourceLedger) -> None:
    ledger, held = with_gpus, BundleReservations(with_gpus)
    assert held.prepare(GROUP, b"r", {0: gpus(1), 1: gpus(2)}, 0.0) == {}
    assert ledger.allocate(b"outside", gpus(1)).devices == {"GPU": ["7"]}, "what is left of the node"
    held.commit(GROUP, b"r")
    second = bundles.needed(gpus(1), GROUP, 1)
    assert ledger.allocate(b"a", second).devices == {"GPU": ["5"]}
    assert ledger.allocate(b"b", second).devices == {"GPU": ["6"]}
    assert not ledger.can_hold(second)
    ledger.release(b"a")
    assert ledger.allocate(b"c", second).devices == {"GPU": ["5"]}
    assert ledger.allocate(b"d", bundles.needed(gpus(1), GROUP, 0)).devices == {"GPU": ["4"]}


def test_what_runs_in_any_bundle_gets_devices_that_are_free_in_one(with_gpus: ResourceLedger) -> None:
    ledger, held = with_gpus, BundleReservations(with_gpus)
    held.prepare(GROUP, b"r", {0: gpus(1), 1: gpus(1)}, 0.0)
    held.prepare(OTHER, b"r", {0: gpus(1)}, 0.0)
    held.commit(GROUP, b"r")
    held.commit(OTHER, b"r")
    first, any_one = bundles.needed(gpus(1), GROUP, 0), bundles.needed(gpus(1), GROUP, None)
    assert ledger.allocate(b"a", any_one).devices == {"GPU": ["4"]}
    assert not ledger.can_hold(first), "the group has room, the device of its first bundle is taken"
    assert ledger.allocate(b"b", any_one).devices == {"GPU": ["5"]}
    assert not ledger.can_hold(any_one), "the third device is another group's"
    assert ledger.allocate(b"c", bundles.needed(gpus(1), OTHER, None)).devices == {"GPU": ["6"]}


def test_bundles_share_a_device_and_so_does_what_runs_in_them(with_gpus: ResourceLedger) -> None:
    ledger, held = with_gpus, BundleReservations(with_gpus)
    held.prepare(GROUP, b"r", {0: gpus(0.5), 1: gpus(0.5)}, 0.0)
    held.commit(GROUP, b"r")
    for holder, index in ((b"a", 0), (b"b", 0), (b"c", 1)):
        assert ledger.allocate(holder, bundles.needed(gpus(0.25), GROUP, index)).devices == {"GPU": ["4"]}
    assert not ledger.can_hold(bundles.needed(gpus(0.25), GROUP, 0)) and ledger.can_hold(gpus(3))


def test_devices_of_a_bundle_that_is_gone_are_the_nodes(with_gpus: ResourceLedger) -> None:
    ledger, held = with_gpus, BundleReservations(with_gpus)
    held.prepare(GROUP, b"r", {0: gpus(4)}, 0.0)
    held.commit(GROUP, b"r")
    ledger.allocate(b"a", bundles.needed(gpus(2), GROUP, 0))
    held.give_back(GROUP, b"r")
    assert ledger.allocate(b"b", gpus(4)).devices == {"GPU": ["4", "5", "6", "7"]}
    held.prepare(OTHER, b"r", {0: ResourceSet()}, 0.0)
    ledger.release(b"a")
    assert not ledger.has_devices(gpus(0.1)), "what its last holder gives back was given back already"


def test_bundles_whose_amounts_fit_but_not_their_devices_are_refused(with_gpus: ResourceLedger) -> None:
    ledger, held = with_gpus, BundleReservations(with_gpus)
    for holder in (b"a", b"b", b"c"):
        ledger.allocate(holder, gpus(0.6))
    assert held.prepare(GROUP, b"r", {0: gpus(1), 1: gpus(1)}, 0.0) == {"GPU": 2.0}
    assert ledger.can_hold(gpus(1)), "nothing of them is held"


def test_what_becomes_free_is_set_aside_for_a_group_until_it_is_prepared(
    held: BundleReservations, ledger: ResourceLedger
) -> None:
    ledger.allocate(b"task", ResourceSet.of({"CPU": 3}))
    held.await_room(GROUP, ResourceSet.of({"CPU": 2}), 5.0)
    assert ledger.unclaimed == ResourceSet.of({"disk": 1}) and not ledger.can_hold(ONE)
    ledger.release(b"task")
    assert ledger.unclaimed["CPU"] == 20_000
    held.prepare(GROUP, b"r", {0: ONE}, 0.0)
    assert ledger.unclaimed["CPU"] == 20_000, "half of it is prepared, half still set aside"
    held.give_back(GROUP, b"r")
    assert ledger.unclaimed["CPU"] == 20_000, "another node had no room: all is set aside again"
    held.prepare(GROUP, b"s", {0: ONE, 1: ONE}, 0.0)
    held.commit(GROUP, b"s")
    assert ledger.unclaimed == ledger.available and ledger.available["CPU"] == 20_000


def test_what_is_set_aside_and_not_said_again_is_anybodys(held: BundleReservations, ledger: ResourceLedger) -> None:
    held.await_room(GROUP, ONE, 5.0)
    held.await_room(OTHER, ONE, 9.0)
    assert held.next_deadline() == 5.0
    held.tick(5.0)
    assert ledger.unclaimed["CPU"] == 30_000
    held.await_room(OTHER, ResourceSet(), 9.0)
    assert ledger.unclaimed == NODE and held.next_deadline() is None


def test_a_removed_group_needs_no_room(held: BundleReservations, ledger: ResourceLedger) -> None:
    held.await_room(GROUP, ONE, 5.0)
    held.give_back(GROUP, b"")
    assert ledger.unclaimed == NODE


def test_what_is_lent_is_not_set_aside(held: BundleReservations, ledger: ResourceLedger) -> None:
    """The children of a task that waits for them run, or it would never end."""
    ledger.allocate(b"parent", ONE)
    held.await_room(GROUP, NODE, 5.0)
    assert ledger.unclaimed == ResourceSet()
    ledger.lend_cpu(b"parent")
    assert ledger.unclaimed == ONE


def test_the_work_for_a_group_grows_with_its_bundles_and_no_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside another large one, which adds names to the node for each of its bundles."""
    many, copied = 400, 0
    make = ResourceSet.__init__

    def counting(self: ResourceSet, grains: Mapping[str, int] | None = None) -> None:
        nonlocal copied
        copied += len(grains or ())
        make(self, grains)

    ledger = ResourceLedger(ResourceSet.of({"CPU": 2 * many}))
    held = BundleReservations(ledger)
    wanted = {index: ResourceSet.of({"CPU": 1}) for index in range(many)}
    monkeypatch.setattr(ResourceSet, "__init__", counting)
    for group in (GROUP, OTHER):
        assert held.prepare(group, b"r", wanted, 0.0) == {}
        assert held.commit(group, b"r")
    for group in (GROUP, OTHER):
        held.give_back(group, b"")
    assert ledger.available == ledger.total == ResourceSet.of({"CPU": 2 * many})
    assert copied < 100 * many


def test_what_is_said_of_a_removed_group_comes_too_late(held: BundleReservations, ledger: ResourceLedger) -> None:
    """Copies of messages that were long under way."""
    held.prepare(GROUP, b"r", {0: ONE}, 0.0)
    held.commit(GROUP, b"r")
    held.give_back(GROUP, b"")
    assert held.prepare(GROUP, b"r", {0: ONE}, 0.0) == {"CPU": 1.0}
    assert not held.commit(GROUP, b"r")
    assert ledger.available == NODE
