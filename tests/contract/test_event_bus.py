"""What every ``EventBus`` promises. A new implementation is one more entry in ``bus``."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pickle
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from support.servers import NatsServer, running

from shoal_common.bus import EventBus, EventBusError, Handler, Subscription, memory, subjects
from shoal_common.bus.gcs import GcsBus
from shoal_common.bus.memory import EventQueue, MemoryBus
from shoal_common.bus.nats import NatsBus
from shoal_common.rpc import server as grpc_server
from shoal_common.rpc.client import aio_channel
from shoal_gcs.rpc.events import EventServicer
from shoal_proto.v1.gcs_pb2_grpc import add_EventServiceServicer_to_server

TOKEN = "bus-token"


@asynccontextmanager
async def memory_bus() -> AsyncIterator[EventBus]:
    bus = MemoryBus()
    yield bus
    await bus.close()


@asynccontextmanager
async def event_service(inner: EventBus, port: int = 0) -> AsyncIterator[int]:
    server = grpc_server.create_server(TOKEN)
    add_EventServiceServicer_to_server(EventServicer(inner), server)
    bound = await grpc_server.serve(server, "127.0.0.1", port)
    yield bound
    await server.stop(None)


@asynccontextmanager
async def gcs_bus() -> AsyncIterator[EventBus]:
    async with memory_bus() as inner, event_service(inner) as port:
        async with aio_channel(f"127.0.0.1:{port}", TOKEN) as channel:
            bus = GcsBus(channel)
            yield bus
            await bus.close()


@pytest.fixture(scope="module")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats"), TOKEN)
    with running(server):
        yield server


@asynccontextmanager
async def nats_bus(server: NatsServer) -> AsyncIterator[EventBus]:
    bus = await NatsBus.connect(server.address, TOKEN)
    yield bus
    await bus.close()


@pytest.fixture(params=["memory", "gcs", "nats"])
async def bus(request: pytest.FixtureRequest) -> AsyncIterator[EventBus]:
    buses: dict[str, Callable[[], AbstractAsyncContextManager[EventBus]]] = {
        "memory": memory_bus,
        "gcs": gcs_bus,
        "nats": lambda: nats_bus(request.getfixturevalue("nats_server")),
    }
    async with buses[request.param]() as bus:
        yield bus


class Inbox:
    """A handler that lets a test wait for events."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()

    def __call__(self, subject: str, data: bytes) -> None:
        self._queue.put_nowait((subject, data))

    async def take(self, count: int) -> list[tuple[str, bytes]]:
        async with asyncio.timeout(60):
            return [await self._queue.get() for _ in range(count)]

    async def until(self, subject: str) -> list[tuple[str, bytes]]:
        """Everything before the event ``subject``, which the test publishes last."""
        events = []
        while (event := (await self.take(1))[0])[0] != subject:
            events.append(event)
        return events


async def test_an_event_reaches_every_subscriber_of_its_subject(bus: EventBus) -> None:
    first, second = Inbox(), Inbox()
    await bus.subscribe("shoal.c.node.1", first)
    await bus.subscribe("shoal.c.node.1", second)
    await bus.publish("shoal.c.node.1", b"\x00data")
    assert await first.take(1) == [("shoal.c.node.1", b"\x00data")]
    assert await second.take(1) == [("shoal.c.node.1", b"\x00data")]


async def test_events_of_one_publisher_keep_their_order(bus: EventBus) -> None:
    inbox = Inbox()
    await bus.subscribe("numbers.*", inbox)
    for i in range(300):
        await bus.publish(f"numbers.{i % 3}", str(i).encode())
    assert [data for _, data in await inbox.take(300)] == [str(i).encode() for i in range(300)]


@pytest.mark.parametrize(
    ("pattern", "taken"),
    [
        ("a.b.c", ["a.b.c"]),
        ("a.*.c", ["a.b.c", "a.x.c"]),
        ("a.*", ["a.b"]),
        ("*.*.*", ["a.b.c", "a.x.c"]),
        ("a.>", ["a.b", "a.b.c", "a.x.c", "a.b.c.d"]),
        ("a.*.>", ["a.b.c", "a.x.c", "a.b.c.d"]),
        (">", ["a", "a.b", "a.b.c", "a.x.c", "a.b.c.d", "ab.c"]),
    ],
)
async def test_wildcards(bus: EventBus, pattern: str, taken: list[str]) -> None:
    inbox = Inbox()
    await bus.subscribe(pattern, inbox)
    await bus.subscribe("the.end.of.this.test", inbox)
    for subject in ("a", "a.b", "a.b.c", "a.x.c", "a.b.c.d", "ab.c"):
        await bus.publish(subject, b"")
    await bus.publish("the.end.of.this.test", b"")
    if pattern == ">":
        assert [subject for subject, _ in await inbox.take(len(taken))] == taken
    else:
        # Two subscriptions may overtake one another, so the end is awaited together with what was expected.
        events = await inbox.take(len(taken) + 1)
        assert sorted(subject for subject, _ in events) == sorted([*taken, "the.end.of.this.test"])


async def test_nothing_arrives_after_unsubscribing(bus: EventBus) -> None:
    ended, other = Inbox(), Inbox()
    subscription = await bus.subscribe("s", ended)
    await bus.subscribe("s", other)
    await bus.publish("s", b"1")
    await ended.take(1)
    await subscription.unsubscribe()
    await subscription.unsubscribe()
    await bus.publish("s", b"2")
    assert await other.take(2) == [("s", b"1"), ("s", b"2")]
    with pytest.raises(asyncio.QueueEmpty):
        ended._queue.get_nowait()


async def test_a_handler_that_raises_harms_nobody(bus: EventBus, caplog: pytest.LogCaptureFixture) -> None:
    inbox = Inbox()

    def broken(subject: str, data: bytes) -> None:
        inbox("called", data)
        raise RuntimeError("a mistake of the subscriber")

    await bus.subscribe("s", broken)
    await bus.publish("s", b"1")
    await bus.publish("s", b"2")
    assert await inbox.take(2) == [("called", b"1"), ("called", b"2")]
    assert "a mistake of the subscriber" in caplog.text


@pytest.mark.parametrize("subject", ["", "a..b", ".a", "a.", "a.*", "a.>"])
async def test_what_is_not_a_subject_is_refused(bus: EventBus, subject: str) -> None:
    with pytest.raises(ValueError, match="is not a subject"):
        await bus.publish(subject, b"")


@pytest.mark.parametrize("pattern", ["", "a..b", "a.>.b"])
async def test_what_is_not_a_pattern_is_refused(bus: EventBus, pattern: str) -> None:
    with pytest.raises(ValueError, match="is not a pattern"):
        await bus.subscribe(pattern, Inbox())


async def test_a_closed_bus_says_so(bus: EventBus) -> None:
    inbox = Inbox()
    await bus.subscribe("s", inbox)
    await bus.close()
    await bus.close()
    with pytest.raises(EventBusError, match="closed"):
        await bus.publish("s", b"")
    with pytest.raises(EventBusError, match="closed"):
        await bus.subscribe("s", inbox)


def test_the_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(EventBusError("gone")))
    assert type(error) is EventBusError
    assert str(error) == "gone"


# --- subjects ---


def test_subjects_name_their_ids_in_hexadecimal() -> None:
    assert subjects.heartbeat("c", b"\x0a\xff") == "shoal.c.heartbeat.0aff"
    assert subjects.log("c", b"\x01", b"\x02", b"\x03") == "shoal.c.log.01.02.03"
    assert subjects.matcher(subjects.logs_of_job("c", b"\x01"))(subjects.log("c", b"\x01", b"\x02", b"\x03"))
    assert not subjects.matcher(subjects.logs_of_job("c", b"\x01"))(subjects.log("c", b"\x11", b"\x02", b"\x03"))
    for pattern, subject in [
        (subjects.all_heartbeats("c"), subjects.heartbeat("c", b"\x01")),
        (subjects.all_nodes("c"), subjects.node("c", b"\x01")),
        (subjects.all_actors("c"), subjects.actor("c", b"\x01")),
        (subjects.all_jobs("c"), subjects.job("c", b"\x01")),
    ]:
        assert subjects.matcher(pattern)(subject)
        assert not subjects.matcher(pattern)(subject.replace("shoal.c.", "shoal.d."))


# --- what only one of them can get wrong ---


def test_a_slow_subscriber_loses_the_newest_and_is_warned_about_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    queue = EventQueue("s", size=2)
    caplog.set_level(logging.WARNING)
    assert [queue.push("s", str(i).encode(), now=100.0) for i in range(4)] == [True, True, False, False]
    assert [queue.pop()[1], queue.pop()[1]] == [b"0", b"1"]
    assert len(caplog.records) == 1
    for _ in range(3):
        queue.push("s", b"", now=100.0 + memory.WARN_EVERY_S)
    assert [record.getMessage() for record in caplog.records] == [
        "subscriber of s is too slow: 1 events lost so far",
        "subscriber of s is too slow: 3 events lost so far",
    ]


async def test_memory_a_handler_runs_after_publish_and_not_inside() -> None:
    async with memory_bus() as bus:
        inbox = Inbox()
        seen: list[bytes] = []
        await bus.subscribe("s", lambda _subject, data: seen.append(data))
        await bus.subscribe("s", inbox)
        await bus.publish("s", b"1")
        assert seen == []
        await inbox.take(1)
        assert seen == [b"1"]


async def test_gcs_a_subscription_survives_the_gcs(caplog: pytest.LogCaptureFixture) -> None:
    async with contextlib.AsyncExitStack() as stack:
        inner = await stack.enter_async_context(memory_bus())
        first = event_service(inner)
        port = await first.__aenter__()
        channel = await stack.enter_async_context(aio_channel(f"127.0.0.1:{port}", TOKEN))
        bus = GcsBus(channel)
        inbox, gaps = Inbox(), []
        await bus.subscribe("s.*", inbox, on_gap=lambda: gaps.append(port))
        await bus.publish("s.1", b"")
        assert await inbox.take(1) == [("s.1", b"")]
        assert not gaps

        await first.__aexit__(None, None, None)
        with pytest.raises(EventBusError, match="cannot publish"):
            await bus.publish("s.2", b"")

        async with event_service(inner, port):
            arrived = asyncio.ensure_future(inbox.take(1))
            # Events are hints: the one that comes back is the first after the stream is open again.
            while not arrived.done():
                await inner.publish("s.3", b"")
                await asyncio.wait([arrived], timeout=0.05)
            assert await arrived == [("s.3", b"")]
            assert gaps == [port]
            await bus.close()


async def test_gcs_a_subscription_that_is_not_confirmed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal_common.bus.gcs.SUBSCRIBE_DEADLINE_S", 0.3)
    async with memory_bus() as inner, event_service(inner) as port:
        async with aio_channel(f"127.0.0.1:{port}", "not the token") as channel:
            with pytest.raises(EventBusError, match="UNAUTHENTICATED"):
                await GcsBus(channel).subscribe("s", Inbox())


class TellingBus(MemoryBus):
    """Tells when a subscription has ended."""

    def __init__(self) -> None:
        super().__init__()
        self.unsubscribed = asyncio.Event()

    async def subscribe(self, pattern: str, handler: Handler) -> Subscription:  # type: ignore[override]
        subscription = await super().subscribe(pattern, handler)
        bus = self

        class Telling:
            async def unsubscribe(self) -> None:
                await subscription.unsubscribe()
                bus.unsubscribed.set()

        return Telling()


async def test_gcs_a_stream_that_ends_leaves_no_subscription() -> None:
    inner = TellingBus()
    async with event_service(inner) as port:
        async with aio_channel(f"127.0.0.1:{port}", TOKEN) as channel:
            bus = GcsBus(channel)
            subscription = await bus.subscribe("s", Inbox())
            assert not inner.unsubscribed.is_set()
            await subscription.unsubscribe()
            async with asyncio.timeout(60):
                await inner.unsubscribed.wait()
            await bus.close()
    await inner.close()
