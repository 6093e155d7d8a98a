"""The dashboard's port and whoever comes to it without a request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn

from shoal_dashboard import connections
from shoal_dashboard.connections import Connection

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def answer(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"up"})


@pytest.fixture
async def port() -> AsyncIterator[int]:
    config = uvicorn.Config(answer, port=0, http=Connection, lifespan="off", log_config=None, limit_concurrency=1000)
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    yield server.servers[0].sockets[0].getsockname()[1]
    await server.shutdown()


async def test_who_sends_no_request_gives_way_to_the_next(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_WAITING", 8)
    strangers = [await asyncio.open_connection("127.0.0.1", port) for _ in range(50)]
    for _, writer in strangers[1::2]:
        writer.write(REQUEST[:10])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(3):
        writer.write(REQUEST)
        assert (await reader.readuntil(b"\r\n\r\nup")).startswith(b"HTTP/1.1 200 ")
    for stranger, _ in strangers[:40]:
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await stranger.readexactly(1)
    for _, each in [*strangers, (reader, writer)]:
        each.transport.abort()


@pytest.mark.parametrize("begins", [b"", REQUEST[:10], REQUEST + REQUEST[:10]])
async def test_the_head_of_a_request_has_its_time(port: int, monkeypatch: pytest.MonkeyPatch, begins: bytes) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(begins)
    whole = begins.startswith(REQUEST)
    try:
        assert (await reader.read()).endswith(b"up" if whole else b"")
    except ConnectionError:
        pass  # closed without more ado
    writer.transport.abort()
