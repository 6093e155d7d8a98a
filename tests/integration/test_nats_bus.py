"""What becomes of the event bus when NATS is killed, hangs, refuses the token or is not there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.certificates import Authority
from support.servers import NatsServer, running

from shoal_common.bus import EventBusError
from shoal_common.bus import nats as nats_module
from shoal_common.bus.nats import NatsBus
from shoal_common.tls import ServerTls

TOKEN = "a-token-that-nobody-may-read"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path, TOKEN)
    with running(server):
        yield server


@asynccontextmanager
async def connected(server: NatsServer) -> AsyncIterator[NatsBus]:
    bus = await NatsBus.connect(server.address, TOKEN)
    yield bus
    await bus.close()


async def test_tls_with_a_client_certificate(tmp_path: Path) -> None:
    identity = Authority(tmp_path / "authority").issue()
    server = NatsServer(tmp_path / "nats", TOKEN, identity)
    with running(server):
        for name in ("", "shoal"):
            tls = ServerTls(identity.ca, identity.cert, identity.key, server_name=name)
            bus = await NatsBus.connect(server.address, TOKEN, tls=tls)
            inbox = Inbox()
            await bus.subscribe("s", inbox)
            await bus.publish("s", b"secret")
            assert await inbox.take() == b"secret"
            await bus.close()


async def test_certificates_that_do_not_fit_are_told(tmp_path: Path) -> None:
    identity, stranger = (Authority(tmp_path / name).issue() for name in ("authority", "stranger"))
    server = NatsServer(tmp_path / "nats", TOKEN, identity)
    with running(server):
        for tls in (
            None,
            ServerTls(stranger.ca),
            ServerTls(identity.ca),
            ServerTls(identity.ca, identity.cert, identity.key, server_name="else.where"),
        ):
            with pytest.raises(EventBusError, match=f"cannot connect to NATS at {server.address} .*TLS settings"):
                await NatsBus.connect(server.address, TOKEN, 1.0, tls=tls)


async def test_the_token_is_not_told_to_a_server_that_does_without_tls(server: NatsServer, tmp_path: Path) -> None:
    identity = Authority(tmp_path / "authority").issue()
    with pytest.raises(EventBusError, match="does not offer TLS, which is asked for: the token is not sent"):
        await NatsBus.connect(server.address, TOKEN, tls=ServerTls(identity.ca))


async def test_of_several_servers_the_one_that_answers_is_used(server: NatsServer, tmp_path: Path) -> None:
    absent = NatsServer(tmp_path / "absent", TOKEN)
    bus = await NatsBus.connect(f"{absent.address},{server.address}", TOKEN)
    await bus.publish("s", b"")
    await bus.close()


class Inbox:
    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes] = asyncio.Queue()

    def __call__(self, subject: str, data: bytes) -> None:
        self._queue.put_nowait(data)

    async def take(self) -> bytes:
        async with asyncio.timeout(60):
            return await self._queue.get()


async def logged(caplog: pytest.LogCaptureFixture, text: str) -> None:
    """Waits until it has been written to the log."""
    found = asyncio.Event()

    class Reader(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if text in record.getMessage():
                found.set()

    logger, reader = logging.getLogger(nats_module.__name__), Reader()
    logger.addHandler(reader)
    try:
        if text not in caplog.text:
            async with asyncio.timeout(60):
                await found.wait()
    finally:
        logger.removeHandler(reader)


async def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    server = NatsServer(tmp_path, TOKEN)
    with pytest.raises(EventBusError, match=f"cannot connect to NATS at {server.address} in 0.5 s: .*refused|failed"):
        await NatsBus.connect(server.address, TOKEN, deadline_s=0.5)


async def test_a_server_that_starts_late_is_waited_for(tmp_path: Path) -> None:
    server = NatsServer(tmp_path, TOKEN)
    connecting = asyncio.ensure_future(NatsBus.connect(server.address, TOKEN, deadline_s=30))
    await asyncio.sleep(0)
    with running(server):
        bus = await connecting
        await bus.close()


async def test_a_wrong_token_is_refused_and_no_token_is_told(
    server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(EventBusError, match=f"NATS at {server.address} has refused the token") as refused:
        await NatsBus.connect(server.address, "another-token", deadline_s=30)
    assert "another" not in str(refused.value)
    async with connected(server):
        pass
    assert "a-token" not in caplog.text and "another-token" not in caplog.text


async def test_a_subscription_survives_a_restart(server: NatsServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    inbox, gaps = Inbox(), []
    async with connected(server) as bus:
        await bus.subscribe("s.*", inbox, on_gap=lambda: gaps.append(server.address))
        await bus.publish("s.1", b"before")
        assert await inbox.take() == b"before"
        server.kill()
        await logged(caplog, "lost, connecting again")
        await bus.publish("s.1", b"meanwhile")
        server.start()
        await logged(caplog, "connected to NATS")
        await bus.publish("s.1", b"after")
        assert [await inbox.take(), await inbox.take()] == [b"meanwhile", b"after"]
        assert gaps == [server.address]


async def test_an_outage_fills_a_bounded_buffer(server: NatsServer, caplog: pytest.LogCaptureFixture) -> None:
    async with connected(server) as bus:
        server.kill()
        await logged(caplog, "lost, connecting again")
        event = bytes(100_000)
        for _ in range(nats_module.MAX_BUFFERED_BYTES // len(event)):
            await bus.publish("s", event)
        with pytest.raises(EventBusError, match=server.address):
            await bus.publish("s", event)


async def test_an_event_that_is_too_large_is_refused_and_harms_nothing(server: NatsServer) -> None:
    inbox = Inbox()
    async with connected(server) as bus:
        await bus.subscribe("s", inbox)
        with pytest.raises(EventBusError, match="cannot publish s"):
            await bus.publish("s", bytes(2_000_000))
        await bus.publish("s", b"small")
        assert await inbox.take() == b"small"


async def test_a_server_that_hangs_is_noticed(
    server: NatsServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_module, "PING_INTERVAL_S", 0.1)
    inbox = Inbox()
    async with connected(server) as bus:
        await bus.subscribe("s", inbox)
        server.stop()
        await logged(caplog, "lost, connecting again")
        server.resume()
        await bus.publish("s", b"1")
        assert await inbox.take() == b"1"


async def test_a_subscription_that_is_not_confirmed_is_an_error(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_module, "DEADLINE_S", 0.3)
    refused, inbox = Inbox(), Inbox()
    async with connected(server) as bus:
        server.stop()
        with pytest.raises(EventBusError, match=f"cannot subscribe to s: NATS at {server.address}"):
            await bus.subscribe("s", refused)
        server.resume()
        monkeypatch.setattr(nats_module, "DEADLINE_S", 30)
        await bus.subscribe("s", inbox)
        await bus.publish("s", b"1")
        assert await inbox.take() == b"1"
        assert refused._queue.empty()


async def test_a_subscription_waits_for_the_end_of_an_outage(
    server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = Inbox()
    async with connected(server) as bus, connected(server) as publisher:
        server.kill()
        await logged(caplog, "lost, connecting again")
        subscribing = asyncio.ensure_future(bus.subscribe("s", inbox))
        await asyncio.sleep(0)
        server.start()
        await subscribing
        await publisher.publish("s", b"1")
        assert await inbox.take() == b"1"


async def test_a_bus_can_be_closed_while_its_server_hangs_or_is_gone(server: NatsServer) -> None:
    hanging = await NatsBus.connect(server.address, TOKEN)
    orphan = await NatsBus.connect(server.address, TOKEN)
    await hanging.subscribe("s", Inbox())
    await orphan.subscribe("s", Inbox())
    server.stop()
    await hanging.close()
    server.kill()
    await orphan.close()


async def test_a_slow_subscriber_loses_the_newest_and_is_warned_about_now_and_then(
    server: NatsServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_module, "MAX_QUEUED", 1)
    inbox, other = Inbox(), Inbox()
    async with connected(server) as publisher, connected(server) as bus:
        await bus.subscribe("s", inbox)
        monkeypatch.setattr(nats_module, "MAX_QUEUED", 1_000)
        await bus.subscribe("s", other)
        for i in range(500):
            await publisher.publish("s", str(i).encode())
        for i in range(500):
            assert await other.take() == str(i).encode()
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warnings == ["subscriber of s is too slow: 1 events lost so far"]
    assert await inbox.take() == b"0"
