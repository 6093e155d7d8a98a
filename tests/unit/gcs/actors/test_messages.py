from __future__ import annotations

from shoal_common.ids import JobID, new_placement_group_id
from shoal_common.placement.resources import ResourceSet
from shoal_common.placement.strategy import Strategy
from shoal_gcs.actors.messages import actor_info, actor_of_row, actor_of_spec
from shoal_proto.v1 import common_pb2, gcs_pb2

GROUP = new_placement_group_id(JobID(b"\0\0\0\1"))


def test_what_a_row_tells_when_the_spec_is_gone() -> None:
    """As of dead actors."""
    spec = gcs_pb2.ActorSpec(
        actor_id=b"a" * 16,
        held=common_pb2.ResourceAmounts(grains={"CPU": 20_000}),
        strategy=Strategy(group_id=GROUP, bundle=1).encode(),
    )
    actor = actor_of_row(actor_info(actor_of_spec(spec)), None)
    assert (actor.held, actor.group_id) == (ResourceSet.of({"CPU": 2}), GROUP)
