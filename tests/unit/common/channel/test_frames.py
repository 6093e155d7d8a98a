from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal_common.channel import frames

MESSAGES = [
    frames.LeaseDemand(1, 5, frames.SchedulingClass("f", (("CPU", 10_000),))),
    frames.LeaseGranted(1, b"lease", frames.WorkerAddress(b"n", b"w", "/tmp/x"), 42),
    frames.Blocked(),
    frames.ObjectFree([b"a" * 24, b"b" * 24]),
    frames.FunctionData(3, b"x" * 5000),
]


@given(st.lists(st.integers(1, 3000), max_size=20))
def test_messages_survive_any_cutting_of_the_stream(cuts: list[int]) -> None:
    stream = b"".join(frames.encode_frame(message) for message in MESSAGES)
    decoder = frames.FrameDecoder(frames.RayletMessage)
    received, at = [], 0
    for cut in [*cuts, len(stream)]:
        received += decoder.feed(stream[at : at + cut])
        at += cut
    assert received == MESSAGES


def test_a_frame_over_the_limit_is_refused_before_it_is_read() -> None:
    decoder = frames.FrameDecoder(frames.RayletMessage)
    with pytest.raises(msgspec.DecodeError, match="over the limit"):
        decoder.feed(frames.LENGTH.pack(frames.MAX_FRAME_BYTES + 1))


@pytest.mark.parametrize("body", [b"\xc1", b"\x91\x00", b"\x92\x0a\xa1x"])
def test_garbage_is_an_error_and_not_a_message(body: bytes) -> None:
    decoder = frames.FrameDecoder(frames.RayletMessage)
    with pytest.raises(msgspec.DecodeError):
        decoder.feed(frames.LENGTH.pack(len(body)) + body)


def test_every_message_has_its_own_tag() -> None:
    tags = [message.__struct_config__.tag for message in frames.Message.__subclasses__()]
    assert len(tags) == len(set(tags))
