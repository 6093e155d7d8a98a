"""A node's reports on their way to a listener, over NATS, while that is killed and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.processes import PATIENCE_S
from support.servers import NatsServer, running

from shoal_common.bus import subjects
from shoal_common.bus.nats import NatsBus
from shoal_common.channel.frames import TaskReport
from shoal_common.events.node_events import NodeLoad, NodeReport, decode_load
from shoal_common.events.task_events import FunctionTally
from shoal_dashboard.events import receiver as receiver_module
from shoal_dashboard.events.receiver import Receiver
from shoal_dashboard.events.seen import Seen
from shoal_raylet.cluster import event_publisher as publisher_module
from shoal_raylet.cluster.event_publisher import EventPublisher
from shoal_raylet.cluster.node_events import NodeEvents

TOKEN, CLUSTER, NODE = "a-token-that-nobody-may-read", "c", b"n" * 16


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path, TOKEN)
    with running(server):
        yield server


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports, and what is said by who listens, many times a second."""
    monkeypatch.setattr(publisher_module, "INTERVAL_S", 0.02)
    monkeypatch.setattr(publisher_module, "_AGAIN_AFTER_S", 0.2)
    monkeypatch.setattr(receiver_module, "LISTENING_S", 0.1)
    monkeypatch.setattr(receiver_module, "_AGAIN_S", 0.1)


async def until(condition: Callable[[], bool], what: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - whatever it is that changes
            await asyncio.sleep(0.01)
    assert condition(), what


async def test_each_report_comes_once_also_those_made_while_nats_was_away(server: NatsServer) -> None:
    events = NodeEvents(NODE, 1)
    happened = 0

    def happen() -> None:
        nonlocal happened
        happened += 1
        tally = FunctionTally(b"job1", "f", 0, happened, happened, run_us=1)
        events.reported(b"p", TaskReport([tally], b"e%d" % happened, 1, 0, 0))

    got: list[NodeReport] = []

    async def take(reports: list[NodeReport]) -> None:
        got.extend(reports)

    async def connect() -> NatsBus:
        return await NatsBus.connect(server.address, TOKEN)

    bus = await connect()
    load = NodeLoad(NODE, 12.5, 4, 1, 2, 3, 4, 5, 6)
    loads: list[NodeLoad] = []
    publisher = EventPublisher(bus, CLUSTER, NODE, 1, events, happen, lambda: load)
    publisher.start()
    await until(lambda: happened > 5, "nobody listens, and it is kept")
    seen = Seen()
    also = {subjects.all_loads(CLUSTER): lambda _subject, data: loads.append(decode_load(data))}
    receiver = Receiver(connect, CLUSTER, seen, take, also)
    receiver.start()
    await until(lambda: len(got) > 20, "who listens gets what was before, and what comes")
    await until(lambda: load in loads, "and how busy the node is")
    server.kill()
    await until(lambda: events.newest > len(got) + 30, "reports that nobody gets")
    server.start()
    missed = events.newest
    await until(lambda: {report.number for report in got} >= set(range(1, missed + 1)), "they come all the same")
    await receiver.stop()
    await publisher.stop()
    await bus.close()
    numbers = [report.number for report in got]
    assert len(numbers) == len(set(numbers)), "each once"
    assert seen.lost == 0
    parts = sorted(int(part.events[1:]) for report in got for part in report.events if report.number <= missed)
    assert parts[: missed - 1] == list(range(1, missed)), "nothing is missing"
    newest = max(got, key=lambda report: report.number)
    assert newest.tallies[0].finished >= missed - 1
