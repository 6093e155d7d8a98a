"""Placement groups: bundles of resources reserved together or not at all; public in ``shoal.util.placement_group``.

A bundle is reserved on one node. Tasks and actors run in it with
``scheduling_strategy=PlacementGroupSchedulingStrategy(pg, placement_group_bundle_index=...)``.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from shoal import _context, _current, _html, exceptions
from shoal._api.export import Exportable, scheduling_class
from shoal._api.quota import check_quota
from shoal._core.object_ref import ObjectRef
from shoal._core.public_ids import PlacementGroupID
from shoal._core.task_record import FunctionRecord
from shoal._net.gcs.errors import InvalidArgument, NotFound
from shoal._net.gcs.records import BundleRecord, GroupRecord, GroupSpec
from shoal._owner.tasks.arguments import pack_arguments
from shoal._text import check_text
from shoal._values.numbers import plain, plain_amounts, seconds
from shoal_common import ids
from shoal_common.placement.labels import Selector, parse_selector
from shoal_common.placement.resources import ResourceSet
from shoal_common.placement.strategy import Strategy
from shoal_common.states import GroupState, PlacementStrategy

STRATEGIES = frozenset(strategy.name for strategy in PlacementStrategy)
#: One question about a group is held back for so long, in seconds.
_POLL_S = 30.0
_EXAMPLE = 'Bundles must be a non-empty list of resource dictionaries. For example: `[{"CPU": 1.0}, {"GPU": 1.0}]`.'


class PlacementGroup:
    """A handle. Picklable; equal by id. The group does not end with its handles, but with ``remove_placement_group``,
    or with the job or the detached actor that created it."""

    def __init__(self, id: PlacementGroupID, bundle_cache: list[dict[str, float]] | None = None) -> None:
        """``bundle_cache``: its bundles, if they are known already."""
        self.id = id
        self._bundles = bundle_cache

    @staticmethod
    def empty() -> PlacementGroup:
        """Stands for no group."""
        return PlacementGroup(PlacementGroupID.nil())

    @property
    def is_empty(self) -> bool:
        return self.id.is_nil()

    def ready(self) -> ObjectRef[PlacementGroup]:
        """Resolves to this group when all bundles are reserved; ``get`` raises TaskPlacementGroupRemoved once it is
        removed."""
        # Straight to the owner, not as a remote function: options name this class, so it knows nothing of them.
        core = _current.connected()
        function = FunctionRecord(_READY.exported_id(), _READY.name)
        queue = core.tasks.queue_of(scheduling_class({}, Strategy(group_id=self.id.binary()).encode()))
        no_limit = -1
        return core.tasks.submit(queue, function, pack_arguments(core.values, (self,), {}), 1, no_limit, False, 0)[0]

    def wait(self, timeout_seconds: float = 30) -> bool:
        """Whether all bundles are reserved within that time; False at once for a removed group.

        Raises: TypeError, ValueError (NaN).
        """
        deadline = time.monotonic() + seconds(timeout_seconds, "timeout_seconds")
        groups = _current.connected().gcs.groups
        group = groups.wait(self.id.binary())
        while group is not None and group.state is not GroupState.CREATED:
            left = deadline - time.monotonic()
            if left <= 0 or group.state is GroupState.REMOVED:
                return False
            group = groups.wait(self.id.binary(), group.version, min(left, _POLL_S))
        return group is not None

    @property
    def bundle_specs(self) -> list[dict[str, float]]:
        """Resources of each bundle, in units. Raises: ValueError for a group that was removed long ago."""
        if self._bundles is None:
            assert not self.is_empty, "the empty placement group has no bundles"
            group = _current.connected().gcs.groups.wait(self.id.binary())
            if group is None:
                raise ValueError(f"Placement group {self.id.hex()} does not exist: it was removed long ago.")
            self._bundles = _bundles(group.bundles)
        return self._bundles

    @property
    def bundle_count(self) -> int:
        return len(self.bundle_specs)

    def __repr__(self) -> str:
        bundles = "" if self._bundles is None else f", {self._bundles}"
        return f"PlacementGroup({self.id.hex()}{bundles})"

    def _repr_html_(self) -> str:
        """With its state now."""
        group = None if self.is_empty else _current.connected().gcs.groups.wait(self.id.binary())
        if group is None:
            return _html.table(repr(self), [("state", "there is none")])
        rows: list[tuple[str, object]] = [("state", group.state.name), ("strategy", group.strategy.name)]
        nodes = [bundle.node_id.hex() for bundle in group.bundles]
        for index, (bundle, node) in enumerate(zip(_bundles(group.bundles), nodes, strict=True)):
            rows.append((f"bundle {index}", f"{bundle} on node {node}" if node else bundle))
        return _html.table(repr(self), rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlacementGroup) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __reduce__(self) -> tuple[Any, ...]:
        return PlacementGroup, (self.id, self._bundles)


class PlacementGroupSchedulingStrategy:
    """Run the task or actor in a bundle of a placement group.

    ``placement_group_bundle_index``: which bundle; -1 = any with room. ``placement_group_capture_child_tasks``: the
    tasks and actors that it creates go to the group too, unless they say otherwise; None = as the running task.
    """

    def __init__(
        self,
        placement_group: PlacementGroup | None,
        placement_group_bundle_index: int = -1,
        placement_group_capture_child_tasks: bool | None = None,
    ) -> None:
        if placement_group is not None:
            _check_group(placement_group)
        self.placement_group = placement_group
        self.placement_group_bundle_index: int = plain(placement_group_bundle_index)
        self.placement_group_capture_child_tasks = placement_group_capture_child_tasks


def _placement_group_ready(group: PlacementGroup) -> PlacementGroup:
    return group


#: The task behind ``PlacementGroup.ready``.
_READY = Exportable(_placement_group_ready, "placement_group_ready")


def placement_group(
    bundles: list[dict[str, float]],
    strategy: str = "PACK",
    name: str = "",
    lifetime: str | None = None,
    bundle_label_selector: list[dict[str, str]] | None = None,
) -> PlacementGroup:
    """Ask for ``bundles``, each on one node; returns at once, see ``ready`` and ``wait``.

    ``strategy``: PACK (on few nodes), SPREAD (on many), STRICT_PACK (on one), STRICT_SPREAD (each on its own).
    ``name``: for ``get_placement_group`` in the same namespace. ``lifetime``: "detached" lives until it is removed.
    ``bundle_label_selector``: what the labels of each bundle's node must be.

    Raises: ValueError for arguments that are wrong and for more than the job may hold, ShoalSystemError when the name
    is taken.
    """
    if isinstance(bundles, list):
        bundles = [plain_amounts(bundle) for bundle in bundles]
    validate_placement_group(bundles, strategy, lifetime, bundle_label_selector)
    selectors = _selectors(bundles, bundle_label_selector)
    if not isinstance(name, str):
        raise TypeError(f"The name of a placement group must be a str, not {type(name).__name__}.")
    check_text("the name of a placement group", name)
    check_text("the name of a resource", bundles)
    check_quota("The placement group", _total(bundles))
    core = _current.connected()
    group_id = ids.new_placement_group_id(ids.JobID(core.job_id))
    spec = GroupSpec(
        group_id=group_id,
        job_id=core.job_id,
        owner_id=core.worker_id,
        name=name,
        namespace=core.namespace,
        detached=lifetime == "detached",
        strategy=PlacementStrategy[strategy],
        bundles=tuple(
            BundleRecord(ResourceSet.of(bundle), selector) for bundle, selector in zip(bundles, selectors, strict=True)
        ),
    )
    try:
        core.gcs.groups.create(spec)
    except InvalidArgument as error:
        raise ValueError(error.message) from None
    except exceptions.RpcError as error:
        raise exceptions.ShoalSystemError(f"Failed to create the placement group: {error.message}") from error
    return PlacementGroup(PlacementGroupID(group_id), _bundles(spec.bundles))


def _total(bundles: Iterable[Mapping[str, float]]) -> dict[str, float]:
    return ResourceSet.sum(map(ResourceSet.of, bundles)).to_units()


def validate_placement_group(
    bundles: list[dict[str, float]],
    strategy: str = "PACK",
    lifetime: str | None = None,
    bundle_label_selector: list[dict[str, str]] | None = None,
) -> None:
    """Raises: ValueError for what ``placement_group`` does not take."""
    _check_bundles(bundles)
    _selectors(bundles, bundle_label_selector)
    if strategy not in STRATEGIES:
        supported = ", ".join(sorted(STRATEGIES))
        raise ValueError(f"Invalid placement group strategy {strategy}. Supported strategies are: {supported}.")
    if lifetime not in (None, "detached"):
        raise ValueError(f"Placement group `lifetime` argument must be either `None` or 'detached'. Got {lifetime}.")


def check_placement_group_index(placement_group: PlacementGroup, bundle_index: int) -> None:
    """Raises: ValueError for a bundle that the group does not have; without a group only -1 (any) is one."""
    if placement_group.is_empty:
        if bundle_index != -1:
            raise ValueError("If placement group is not set, the value of placement_group_bundle_index must be -1.")
    elif not -1 <= bundle_index < placement_group.bundle_count:
        raise ValueError(
            f"placement group bundle index {bundle_index} is invalid. Valid placement group indexes: "
            f"0-{placement_group.bundle_count - 1}"
        )


def remove_placement_group(placement_group: PlacementGroup) -> None:
    """Give its bundles back. What runs in them is killed, what waits for them fails. Idempotent.

    Returns when the GCS has written it down; the nodes hear of it a moment later, and what is submitted until then may
    still run.

    Raises: TypeError.
    """
    _check_group(placement_group)
    _current.connected().gcs.groups.remove(placement_group.id.binary())


def get_placement_group(placement_group_name: str) -> PlacementGroup:
    """The group of that name in this namespace. Raises: ValueError when there is none, TypeError."""
    if not placement_group_name:
        raise ValueError("Please supply a non-empty value to get_placement_group")
    if not isinstance(placement_group_name, str):
        raise TypeError(f"The name of a placement group must be a str, not {type(placement_group_name).__name__}.")
    check_text("the name of a placement group", placement_group_name)
    core = _current.connected()
    try:
        group = core.gcs.groups.named(placement_group_name, core.namespace)
    except NotFound:
        raise ValueError(f"Failed to look up placement group with name: {placement_group_name}") from None
    return PlacementGroup(PlacementGroupID(group.group_id), _bundles(group.bundles))


def placement_group_table(placement_group: PlacementGroup | None = None) -> dict[str, Any]:
    """What the GCS knows of a group ({} when it is forgotten); None = of all groups, by their ids in hexadecimal.

    Raises: TypeError.
    """
    if placement_group is not None:
        _check_group(placement_group)
    groups = _current.connected().gcs.groups
    if placement_group is not None:
        group = groups.wait(placement_group.id.binary())
        return _row(group) if group is not None else {}
    return {group.group_id.hex(): _row(group) for group in groups.list()}


def get_current_placement_group() -> PlacementGroup | None:
    """The group in which the running task or actor is; None = in none, as a driver."""
    _current.connected()
    group_id = Strategy.decode(_context.process.strategy).group_id
    return PlacementGroup(PlacementGroupID(group_id)) if group_id else None


def _check_group(given: object) -> None:
    """Raises: TypeError."""
    if not isinstance(given, PlacementGroup):
        raise TypeError(
            f"a placement group is needed, not {type(given).__name__}: get_placement_group finds one by name"
        )


def _bundles(bundles: Iterable[BundleRecord]) -> list[dict[str, float]]:
    return [dict(sorted(bundle.resources.to_units().items())) for bundle in bundles]


def _row(group: GroupRecord) -> dict[str, Any]:
    return {
        "placement_group_id": group.group_id.hex(),
        "name": group.name,
        "bundles": dict(enumerate(_bundles(group.bundles))),
        "bundles_to_node_id": {index: bundle.node_id.hex() for index, bundle in enumerate(group.bundles)},
        "strategy": group.strategy.name,
        "state": group.state.name,
    }


def _check_bundles(bundles: Any) -> None:
    if not isinstance(bundles, list):
        raise ValueError(f"Placement group bundles must be a list, got {type(bundles)}.")
    if not bundles:
        raise ValueError(f"{_EXAMPLE} Got empty list instead.")
    for bundle in bundles:
        if not isinstance(bundle, dict) or not all(map(_is_amount, bundle.items())):
            raise ValueError(_EXAMPLE)
        if (gpus := bundle.get("GPU", 0)) > 1 and gpus % 1:
            raise ValueError(f"Resource quantities >1 must be whole numbers: GPU: {gpus}")
        if not any(bundle.values()):
            raise ValueError(
                f"Bundles cannot be an empty dictionary or resources with only 0 values. Bundles: {bundles}"
            )


def _is_amount(item: tuple[Any, Any]) -> bool:
    name, amount = item
    return isinstance(name, str) and name != "" and isinstance(amount, int | float) and 0 <= amount < float("inf")


def _selectors(bundles: list[dict[str, float]], given: list[Mapping[str, str]] | Any) -> list[Selector]:
    if given is None:
        return [()] * len(bundles)
    if not isinstance(given, list) or not all(isinstance(selector, dict) for selector in given):
        raise ValueError(
            "Bundle label selector must be a list of string dictionary label selectors. For example: "
            '`[{"ray.io/market-type": "spot"}, {"ray.io/accelerator-type": "A100"}]`.'
        )
    if len(given) != len(bundles):
        raise ValueError(
            f"Invalid bundle label selector {given}. The length of `bundle_label_selector` should equal the length of "
            "`bundles`."
        )
    return [parse_selector(selector) for selector in given]
