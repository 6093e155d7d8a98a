"""Placement groups between protobuf and the types that the pure modules speak."""

from __future__ import annotations

from shoal_common.errors import InvalidRequest
from shoal_common.ids import PLACEMENT_GROUP_LENGTH
from shoal_common.placement.labels import decode_selector, encode_selector
from shoal_common.rpc.values import amounts, resource_set
from shoal_common.states import GroupState, PlacementStrategy
from shoal_gcs.groups.bundle_planner import Need
from shoal_gcs.groups.table import Bundle, PlacementGroup
from shoal_proto.v1 import gcs_pb2


def new_group(info: gcs_pb2.PlacementGroupInfo) -> PlacementGroup:
    """As somebody asks for it. Raises: InvalidRequest."""
    if len(info.group_id) != PLACEMENT_GROUP_LENGTH:
        raise InvalidRequest(
            f"a placement group id has {PLACEMENT_GROUP_LENGTH} bytes, this one has {len(info.group_id)}"
        )
    if not info.bundles or not all(resource_set(bundle.resources) for bundle in info.bundles):
        raise InvalidRequest("a placement group has at least one bundle, and each bundle some resource")
    try:
        return PlacementGroup(
            group_id=info.group_id,
            job_id=info.job_id,
            owner_id=info.owner_id,
            strategy=PlacementStrategy(info.strategy),
            bundles=[Bundle(_need(bundle)) for bundle in info.bundles],
            name=info.name,
            namespace=info.namespace,
            detached=info.detached,
        )
    except ValueError as error:
        raise InvalidRequest(str(error)) from error


def group_of_row(info: gcs_pb2.PlacementGroupInfo) -> PlacementGroup:
    group = new_group(info)
    group.bundles = [Bundle(_need(bundle), bundle.node_id, bundle.reservation) for bundle in info.bundles]
    group.actor_id = info.actor_id
    group.sequence = info.sequence
    group.state = GroupState(info.state)
    group.version = info.version
    group.removal_reason = info.removal_reason
    return group


def group_info(group: PlacementGroup) -> gcs_pb2.PlacementGroupInfo:
    """The public state of a group, which is also its row."""
    return gcs_pb2.PlacementGroupInfo(
        group_id=group.group_id,
        job_id=group.job_id,
        owner_id=group.owner_id,
        name=group.name,
        namespace=group.namespace,
        detached=group.detached,
        strategy=gcs_pb2.PlacementStrategy.ValueType(group.strategy),
        bundles=[
            gcs_pb2.BundleInfo(
                resources=amounts(bundle.need.resources),
                selector=encode_selector(bundle.need.selector),
                node_id=bundle.node_id,
                reservation=bundle.reservation,
            )
            for bundle in group.bundles
        ],
        state=gcs_pb2.PlacementGroupState.ValueType(group.state),
        version=group.version,
        actor_id=group.actor_id,
        sequence=group.sequence,
        removal_reason=group.removal_reason,
    )


def _need(bundle: gcs_pb2.BundleInfo) -> Need:
    return Need(resource_set(bundle.resources), decode_selector(bundle.selector))
