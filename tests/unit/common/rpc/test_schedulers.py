"""Which of the scheduler's replicas is asked."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from shoal_common.errors import InvalidRequest, Unavailable
from shoal_common.rpc.client import aio_channel
from shoal_common.rpc.schedulers import Schedulers
from shoal_common.rpc.server import create_server, serve
from shoal_proto.v1 import scheduler_pb2 as pb
from shoal_proto.v1.scheduler_pb2_grpc import SchedulerServiceServicer, add_SchedulerServiceServicer_to_server

TOKEN = "token-of-the-test"


class Replica(SchedulerServiceServicer):
    def __init__(self) -> None:
        self.asked = 0
        self.error: Exception | None = None

    async def PickNode(self, request: pb.PickNodeRequest, context: Any) -> pb.PickNodeResponse:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return pb.PickNodeResponse()


class Two:
    """Two replicas, and the channels to them."""

    def __init__(self) -> None:
        self.replicas = [Replica(), Replica()]
        self.channels: dict[str, Any] = {}

    @property
    def asked(self) -> list[int]:
        return [replica.asked for replica in self.replicas]


@pytest.fixture
async def two() -> AsyncIterator[Two]:
    two = Two()
    async with AsyncExitStack() as stack:
        for replica in two.replicas:
            server = create_server(TOKEN)
            add_SchedulerServiceServicer_to_server(replica, server)
            address = f"127.0.0.1:{await serve(server, '127.0.0.1', 0)}"
            stack.push_async_callback(server.stop, None)
            two.channels[address] = await stack.enter_async_context(aio_channel(address, TOKEN))
        yield two


async def test_who_answered_last_is_asked_again_as_it_knows_what_it_has_placed(two: Two) -> None:
    schedulers = Schedulers(two.channels)
    await schedulers.pick_node(pb.PickNodeRequest())
    assert two.asked == [1, 0]
    two.replicas[0].error = Unavailable("it is being started")
    for _ in range(3):
        await schedulers.pick_node(pb.PickNodeRequest())
    assert two.asked == [2, 3]


async def test_with_chance_all_are_used(two: Two) -> None:
    schedulers = Schedulers(two.channels, random.Random(1))
    for _ in range(20):
        await schedulers.pick_node(pb.PickNodeRequest())
    assert min(two.asked) > 0 and sum(two.asked) == 20


async def test_a_refusal_is_an_answer(two: Two) -> None:
    two.replicas[0].error = InvalidRequest("what is that?")
    with pytest.raises(InvalidRequest, match="what is that"):
        await Schedulers(two.channels).pick_node(pb.PickNodeRequest())
    assert two.asked == [1, 0]


async def test_when_none_answers_each_says_why(two: Two) -> None:
    for replica in two.replicas:
        replica.error = Unavailable("away")
    with pytest.raises(Unavailable, match="no scheduler answers") as caught:
        await Schedulers(two.channels).pick_node(pb.PickNodeRequest())
    assert all(f"{address}: away" in str(caught.value) for address in two.channels)
    with pytest.raises(Unavailable, match="no address is configured"):
        await Schedulers({}).pick_node(pb.PickNodeRequest())
