"""Reading chunks from a source over a real connection; what the source sends is scripted."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shoal_common.channel import codec, frames, tcp
from shoal_raylet.transfer.chunk_stream import ChunkStream

MIB = 1024 * 1024
OBJECT, OTHER = b"an object", b"another"
TIMEOUT_S = 60.0


class Source:
    """The other raylet's end, and what the stream has told so far."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.stream: ChunkStream
        self.chunks: asyncio.Queue[tuple[bytes, int, bool]] = asyncio.Queue()
        self.lost: asyncio.Queue[str] = asyncio.Queue()
        self._questions = codec.Decoder(frames.RayletMessage)
        self._asked: list[frames.ChunkGet] = []

    async def asked(self) -> frames.ChunkGet:
        """What it is asked for next."""
        while not self._asked:
            data = await asyncio.get_running_loop().sock_recv(self.sock, 4096)
            self._asked += [each for each in self._questions.feed(data) if isinstance(each, frames.ChunkGet)]
        return self._asked.pop(0)

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)


@asynccontextmanager
async def connected() -> AsyncIterator[Source]:
    async with asyncio.timeout(TIMEOUT_S):
        with tcp.listen("127.0.0.1", 0) as listener:
            loop = asyncio.get_running_loop()
            reading = tcp.dial("127.0.0.1", listener.getsockname()[1], None)
            accepted, _ = await loop.sock_accept(listener)

        async def dial() -> socket.socket:
            assert isinstance(reading, socket.socket)
            return reading

        with accepted:
            accepted.setblocking(False)
            source = Source(accepted)
            source.stream = ChunkStream(
                dial(),
                on_bytes=lambda: None,
                on_chunk=lambda *chunk: source.chunks.put_nowait(chunk),
                on_lost=source.lost.put_nowait,
            )
            try:
                yield source
            finally:
                source.stream.close()


async def test_a_chunk_that_comes_in_pieces_of_any_size() -> None:
    async with connected() as source:
        target, data = bytearray(4 * MIB), os.urandom(4 * MIB)
        source.stream.ask(OBJECT, 0, memoryview(target))
        asked = await source.asked()
        message = frames.CHUNK_HEADER.pack(asked.request, len(data)) + data
        at = 0
        for end in (3, 8, 9, MIB - 1, MIB + 20, 3 * MIB + 7, len(message) - 1, len(message)):
            await source.send(message[at:end])
            at = end
        assert await source.chunks.get() == (OBJECT, 0, True)
        assert target == data


async def test_small_answers_behind_large_ones() -> None:
    async with connected() as source:
        large, small = bytearray(2 * MIB), bytearray(5)
        for at, target in enumerate((large, small, bytearray(1), large)):
            source.stream.ask(OTHER if at == 2 else OBJECT, at, memoryview(target))
        first, second, refused, last = [(await source.asked()).request for _ in range(4)]
        await source.send(frames.CHUNK_HEADER.pack(first, len(large)) + b"a" * len(large))
        await source.send(frames.CHUNK_HEADER.pack(second, 5) + b"small")
        assert [await source.chunks.get(), await source.chunks.get()] == [(OBJECT, 0, True), (OBJECT, 1, True)]
        assert (large, small) == (b"a" * len(large), b"small")
        await source.send(frames.CHUNK_HEADER.pack(refused, 0))
        assert await source.chunks.get() == (OTHER, 2, False)
        await source.send(frames.CHUNK_HEADER.pack(last, len(large)) + b"b" * len(large))
        assert await source.chunks.get() == (OBJECT, 3, True)
        assert large == b"b" * len(large)


async def test_what_is_not_wanted_any_more_is_dropped() -> None:
    async with connected() as source:
        dropped, wanted = bytearray(3 * MIB), bytearray(2 * MIB)
        source.stream.ask(OTHER, 0, memoryview(dropped))
        source.stream.ask(OBJECT, 0, memoryview(wanted))
        first, second = (await source.asked()).request, (await source.asked()).request
        source.stream.end(OTHER)
        await source.send(frames.CHUNK_HEADER.pack(first, len(dropped)) + b"x" * len(dropped))
        await source.send(frames.CHUNK_HEADER.pack(second, len(wanted)) + b"y" * len(wanted))
        assert await source.chunks.get() == (OBJECT, 0, True)
        assert (dropped, wanted) == (bytes(len(dropped)), b"y" * len(wanted))


async def test_a_source_that_ends_with_little_sent_is_lost_at_once() -> None:
    async with connected() as source:
        source.stream.ask(OBJECT, 0, memoryview(bytearray(4 * MIB)))
        asked = await source.asked()
        await source.send(frames.CHUNK_HEADER.pack(asked.request, 4 * MIB) + b"a few bytes")
        source.sock.close()
        assert await source.lost.get()
        assert source.chunks.empty()
