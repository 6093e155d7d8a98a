"""Messages become bytes and come back, however the stream is cut, and nothing over a limit is sent or taken."""

from __future__ import annotations

import pickle

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal_common.channel import codec, frames

MESSAGES = [
    frames.LeaseDemand(1, 5, frames.SchedulingClass("f", (("CPU", 10_000),))),
    frames.LeaseGranted(1, b"lease", frames.WorkerAddress(b"n", b"w", "/tmp/x"), 42),
    frames.Blocked(),
    frames.ObjectFree([b"a" * 24, b"b" * 24]),
    frames.FunctionData(3, b"x" * 5000),
    frames.ObjectWrite(7, b"o", 0, memoryview(b"y" * 3000)),
    frames.Unblocked(),
]
STREAM = b"".join(map(codec.encode_frame, MESSAGES))


def cut(stream: bytes, sizes: list[int]) -> list[bytes]:
    pieces, at = [], 0
    for size in [*sizes, len(stream)]:
        pieces.append(stream[at : at + size])
        at += size
    return pieces


@given(st.lists(st.integers(1, 3000), max_size=20))
def test_messages_survive_any_cutting_of_the_stream(sizes: list[int]) -> None:
    decoder = codec.Decoder(frames.RayletMessage)
    received = [message for piece in cut(STREAM, sizes) for message in decoder.feed(piece)]
    assert received == MESSAGES
    assert decoder.rest == b""


@given(st.lists(st.integers(1, 3000), max_size=20), st.integers(0, len(MESSAGES)))
def test_what_follows_the_messages_asked_for_is_left(sizes: list[int], wanted: int) -> None:
    decoder = codec.Decoder(frames.RayletMessage)
    received = []
    for piece in cut(STREAM, sizes):
        received += decoder.feed(piece, wanted - len(received))
    assert received == MESSAGES[:wanted]
    assert codec.Decoder(frames.RayletMessage).feed(decoder.rest) == MESSAGES[wanted:]


def test_a_frame_in_pieces_gathers_in_one_buffer_and_is_decoded_once() -> None:
    """To put what is left over in front of each piece would take time that grows with the square of the size."""
    message = frames.FunctionData(1, b"x" * 1_000_000)
    frame = bytes(codec.encode_frame(message))
    decoder = codec.Decoder(frames.RayletMessage)
    received, buffers = [], []
    for at in range(0, len(frame), 1000):
        received += decoder.feed(frame[at : at + 1000])
        buffers.append(decoder._buffer)
    assert received == [message]
    assert all(buffer is buffers[0] for buffer in buffers[:-1])


@pytest.mark.parametrize("limit", [codec.MAX_HANDSHAKE_FRAME_BYTES, codec.MAX_FRAME_BYTES])
def test_a_frame_over_the_limit_is_refused_before_it_is_read(limit: int) -> None:
    decoder = codec.Decoder(frames.RayletMessage, limit)
    assert decoder.feed(codec.LENGTH.pack(limit)) == []
    decoder = codec.Decoder(frames.RayletMessage, limit)
    with pytest.raises(msgspec.DecodeError, match="over the limit"):
        decoder.feed(codec.LENGTH.pack(limit + 1))


def test_a_message_over_the_limit_is_not_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MAX_FRAME_BYTES", 1000)
    assert codec.encode_frame(frames.FunctionData(1, b"x" * 900))
    with pytest.raises(codec.FrameTooLargeError, match=r"FunctionData of 10\d\d bytes is over the limit") as refused:
        codec.encode_frame(frames.FunctionData(1, b"x" * 1000))
    assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)


@pytest.mark.parametrize("body", [b"\xc1", b"\x91\x00", b"\x92\x0a\xa1x", b""])
def test_garbage_is_an_error_and_not_a_message(body: bytes) -> None:
    decoder = codec.Decoder(frames.RayletMessage)
    with pytest.raises(msgspec.DecodeError):
        decoder.feed(codec.LENGTH.pack(len(body)) + body)


@given(st.lists(st.binary(max_size=100), max_size=10))
def test_random_bytes_are_messages_or_an_error(pieces: list[bytes]) -> None:
    decoder = codec.Decoder(frames.RayletMessage, codec.MAX_HANDSHAKE_FRAME_BYTES)
    try:
        for piece in pieces:
            decoder.feed(piece)
    except msgspec.DecodeError:
        return
    assert len(decoder.rest) <= sum(map(len, pieces))
