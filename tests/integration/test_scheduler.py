"""The scheduler service over gRPC: on a bus in this process, and as a process of its own fed by a GCS's events."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.services import started

from shoal_common import errors
from shoal_common.bus import EventBus, subjects
from shoal_common.bus.memory import MemoryBus
from shoal_common.rpc.client import aio_channel, service_errors
from shoal_common.rpc.server import create_server, serve
from shoal_proto.v1 import common_pb2, events_pb2, gcs_pb2
from shoal_proto.v1 import scheduler_pb2 as pb
from shoal_proto.v1.gcs_pb2_grpc import EventServiceServicer, add_EventServiceServicer_to_server
from shoal_proto.v1.scheduler_pb2_grpc import SchedulerServiceStub
from shoal_scheduler.app import SchedulerApp
from shoal_scheduler.config import SchedulerConfig

TOKEN = "token-of-this-test"
CLUSTER = "default"
A, B = b"a" * 16, b"b" * 16


def cpus(units: float) -> common_pb2.ResourceAmounts:
    return common_pb2.ResourceAmounts(grains={"CPU": round(units * 10_000)})


def heartbeat(
    node_id: bytes, total: float = 4, free: float = 4, queued: int = 0, sent: int = 1, labels: Any = None
) -> bytes:
    return events_pb2.Heartbeat(
        node_id=node_id,
        incarnation=1,
        sent_unix_ms=sent,
        total=cpus(total),
        available=cpus(free),
        queued_leases=queued,
        mean_task_us=1_000_000,
        raylet_address=f"{node_id[:1].decode()}:1",
        labels=labels,
    ).SerializeToString()


async def beat(bus: EventBus, node_id: bytes, **load: Any) -> None:
    await bus.publish(subjects.heartbeat(CLUSTER, node_id), heartbeat(node_id, **load))


@pytest.fixture
async def bus() -> AsyncIterator[MemoryBus]:
    bus = MemoryBus()
    yield bus
    await bus.close()


@pytest.fixture
async def scheduler(bus: MemoryBus) -> AsyncIterator[Any]:
    app = SchedulerApp(SchedulerConfig(token=TOKEN, port=0, cluster_id=CLUSTER), bus)
    await app.start()
    async with aio_channel(app.address, TOKEN) as channel:
        yield SchedulerServiceStub(channel)
    await app.stop()


async def test_it_picks_a_node_that_it_heard(bus: MemoryBus, scheduler: Any) -> None:
    assert await scheduler.PickNode(pb.PickNodeRequest(resources=cpus(1))) == pb.PickNodeResponse()
    await beat(bus, A)
    answer = await scheduler.PickNode(pb.PickNodeRequest(resources=cpus(1)))
    assert answer == pb.PickNodeResponse(node_id=A, raylet_address="a:1")


async def test_a_busy_raylet_is_sent_to_the_idle_one(bus: MemoryBus, scheduler: Any) -> None:
    await beat(bus, A, free=0, queued=10)
    await beat(bus, B)
    answer = await scheduler.PickNode(pb.PickNodeRequest(resources=cpus(1), asking_node_id=A))
    assert answer.node_id == B


async def test_the_arguments_draw_the_request(bus: MemoryBus, scheduler: Any) -> None:
    await beat(bus, A)
    await beat(bus, B)
    request = pb.PickNodeRequest(resources=cpus(1), argument_bytes={B.hex(): 1 << 30})
    assert (await scheduler.PickNode(request)).node_id == B


async def test_many_alike_are_placed_over_nodes_in_one_answer(bus: MemoryBus, scheduler: Any) -> None:
    await beat(bus, A)
    await beat(bus, B)
    answer = await scheduler.PickNode(
        pb.PickNodeRequest(resources=cpus(1), strategy="SPREAD", asking_node_id=A, count=6)
    )
    assert {placement.node_id: placement.count for placement in answer.placements} == {A: 3, B: 3}
    assert (answer.node_id, answer.raylet_address) == (answer.placements[0].node_id, "a:1")


async def test_labels_of_heartbeats_decide(bus: MemoryBus, scheduler: Any) -> None:
    await beat(bus, A, labels={"zone": "a"})
    await beat(bus, B, labels={"zone": "b"})
    answer = await scheduler.PickNode(pb.PickNodeRequest(resources=cpus(1), strategy=";zone=b", count=9))
    assert list(answer.placements) == [pb.Placement(node_id=B, count=9)]
    answer = await scheduler.PickNode(pb.PickNodeRequest(resources=cpus(1), strategy=";zone=c"))
    assert answer.infeasible
    assert "does not meet zone=c" in answer.reason


async def test_a_dead_node_is_not_chosen(bus: MemoryBus, scheduler: Any) -> None:
    await beat(bus, A)
    dead = gcs_pb2.NodeInfo(node_id=A, incarnation=1, state=gcs_pb2.NODE_STATE_DEAD)
    await bus.publish(subjects.node(CLUSTER, A), events_pb2.NodeEvent(node=dead).SerializeToString())
    await beat(bus, A, sent=2)
    assert not (await scheduler.PickNode(pb.PickNodeRequest(resources=cpus(1)))).node_id


async def test_a_draining_node_is_not_chosen(bus: MemoryBus, scheduler: Any) -> None:
    await beat(bus, A)
    draining = gcs_pb2.NodeInfo(node_id=A, incarnation=1, state=gcs_pb2.NODE_STATE_DRAINING)
    await bus.publish(subjects.node(CLUSTER, A), events_pb2.NodeEvent(node=draining).SerializeToString())
    assert not (await scheduler.PickNode(pb.PickNodeRequest(resources=cpus(1)))).node_id


async def test_a_broken_event_does_not_stop_the_feed(bus: MemoryBus, scheduler: Any) -> None:
    await bus.publish(subjects.heartbeat(CLUSTER, A), b"\xff\xff")
    await beat(bus, B)
    assert (await scheduler.PickNode(pb.PickNodeRequest(resources=cpus(1)))).node_id == B


async def test_other_clusters_do_not_count(bus: MemoryBus, scheduler: Any) -> None:
    await bus.publish(subjects.heartbeat("other", A), heartbeat(A))
    assert not (await scheduler.PickNode(pb.PickNodeRequest(resources=cpus(1)))).node_id


@pytest.mark.parametrize(
    "request_",
    [pb.PickNodeRequest(strategy="nonsense"), pb.PickNodeRequest(argument_bytes={"not hex": 1})],
    ids=["strategy", "argument_bytes"],
)
async def test_nonsense_is_refused(bus: MemoryBus, scheduler: Any, request_: pb.PickNodeRequest) -> None:
    await beat(bus, A)
    with pytest.raises(errors.InvalidRequest), service_errors():
        await scheduler.PickNode(request_)


async def test_a_stopped_scheduler_leaves_the_bus_alone(bus: MemoryBus) -> None:
    app = SchedulerApp(SchedulerConfig(token=TOKEN, port=0, cluster_id=CLUSTER), bus)
    await app.start()
    await app.stop()
    await app.stop()
    await beat(bus, A)
    await app.start()
    async with aio_channel(app.address, TOKEN) as channel:
        answer = await SchedulerServiceStub(channel).PickNode(pb.PickNodeRequest(resources=cpus(1)))
    assert not answer.node_id
    await app.stop()


class EventsOfGcs(EventServiceServicer):
    """Streams what the test publishes to each subscription, and counts those in force."""

    def __init__(self) -> None:
        self.queues: dict[str, asyncio.Queue[gcs_pb2.Event]] = {}
        self.subscribed = asyncio.Event()

    async def Publish(self, request: gcs_pb2.PublishRequest, context: Any) -> gcs_pb2.PublishResponse:
        raise AssertionError("the scheduler publishes nothing")

    async def Subscribe(self, request: gcs_pb2.SubscribeRequest, context: Any) -> AsyncIterator[gcs_pb2.Event]:
        queue = self.queues[request.patterns[0]] = asyncio.Queue()
        yield gcs_pb2.Event()
        while True:
            yield await queue.get()


async def test_the_process_learns_of_nodes_from_the_gcs_and_stops_on_sigterm(tmp_path: Path) -> None:
    token_path = tmp_path / "token"
    token_path.write_text(TOKEN)
    events = EventsOfGcs()
    gcs = create_server(TOKEN)
    add_EventServiceServicer_to_server(events, gcs)
    port = await serve(gcs, "127.0.0.1", 0)
    async with started("scheduler", token_path, port=0, gcs_address=f"127.0.0.1:{port}") as (child, address):
        assert set(events.queues) == {subjects.all_heartbeats(CLUSTER), subjects.all_nodes(CLUSTER)}
        heartbeats = events.queues[subjects.all_heartbeats(CLUSTER)]
        async with aio_channel(address, TOKEN) as channel:
            stub = SchedulerServiceStub(channel)
            answer = pb.PickNodeResponse()
            for sent in range(1, 100):  # the event and the call take different ways: the first may come later
                heartbeats.put_nowait(
                    gcs_pb2.Event(subject=subjects.heartbeat(CLUSTER, A), data=heartbeat(A, sent=sent))
                )
                answer = await stub.PickNode(pb.PickNodeRequest(resources=cpus(1)))
                if answer.node_id:
                    break
            assert answer.node_id == A
        child.send_signal(signal.SIGTERM)
        assert await child.wait() == 0
    await gcs.stop(None)
