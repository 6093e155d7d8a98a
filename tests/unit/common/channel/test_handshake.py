"""Two processes come to trust each other, or find out that they must not; bytes only."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal_common.channel import codec, frames, handshake
from shoal_common.channel.handshake import Accepting, Authenticated, Connecting, HandshakeError, Introduced

NODE, WORKER = b"n" * 16, b"w" * 16
BEHIND = bytes(codec.encode_frame(frames.Blocked())) * 3


def sides(
    token: str = "token", theirs: str = "token", expects: tuple[bytes, bytes] | None = None, **changes: object
) -> tuple[Connecting, Accepting]:
    hello = handshake.hello("driver", node_id=b"m" * 16, worker_id=b"d" * 16, job_id=b"job1")
    for name, value in changes.items():
        setattr(hello, name, value)
    return Connecting(token, hello, expects), Accepting(theirs, NODE, WORKER)


def challenged(connecting: Connecting, accepting: Accepting) -> None:
    """Up to the proof of the connecting side, which is to be sent."""
    assert isinstance(accepting.receive(connecting.to_send()), Introduced)
    accepting.accept()
    assert connecting.receive(accepting.to_send()) == Authenticated(b"")


@given(st.lists(st.integers(1, 200), max_size=12))
def test_two_sides_with_the_same_token_trust_each_other(sizes: list[int]) -> None:
    """However their bytes come, and what comes behind the handshake is kept for the connection."""
    connecting, accepting = sides(expects=(NODE, WORKER))

    def pieces(data: bytes) -> list[bytes]:
        cut = []
        for size in sizes:
            cut.append(data[:size])
            data = data[size:]
        return [piece for piece in (*cut, data) if piece]

    events = [accepting.receive(piece) for piece in pieces(connecting.to_send())]
    assert isinstance(events.pop(), Introduced) and not any(events)
    assert accepting.hello is not None and accepting.hello.role == "driver"
    accepting.accept(arena_size=7)
    events = [connecting.receive(piece) for piece in pieces(accepting.to_send())]
    assert events.pop() == Authenticated(b"") and not any(events)
    assert connecting.reply is not None and connecting.reply.arena_size == 7
    rest, over = b"", False
    for piece in pieces(connecting.to_send() + BEHIND):
        if over:
            rest += piece
        elif (event := accepting.receive(piece)) is not None:
            assert isinstance(event, Authenticated)
            rest, over = event.rest, True
    assert rest == BEHIND
    assert (connecting.to_send(), accepting.to_send()) == (b"", b"")


def test_a_wrong_token_is_found_out_by_the_connecting_side() -> None:
    connecting, accepting = sides(token="other")
    accepting.receive(connecting.to_send())
    accepting.accept()
    with pytest.raises(handshake.WrongTokenError, match="wrong token"):
        connecting.receive(accepting.to_send())
    assert connecting.to_send() == b""


@pytest.mark.parametrize("side", [b"connecting", b"accepting"], ids=["wrong token", "reflected"])
def test_a_wrong_proof_is_found_out_by_the_accepting_side(side: bytes) -> None:
    connecting, accepting = sides()
    challenged(connecting, accepting)
    assert connecting.reply is not None and accepting.hello is not None
    token = "token" if side == b"accepting" else "other"
    proof = handshake.prove(token, side, accepting.hello.nonce, connecting.reply.nonce)
    with pytest.raises(handshake.WrongTokenError, match="wrong token"):
        accepting.receive(codec.encode_frame(frames.HelloProof(proof)))
    assert accepting.to_send() == b""


def test_a_proof_is_of_no_use_for_another_connection() -> None:
    connecting, accepting = sides()
    challenged(connecting, accepting)
    again, elsewhere = sides()
    challenged(again, elsewhere)
    with pytest.raises(HandshakeError):
        elsewhere.receive(connecting.to_send())


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"version": 99}, "same Shoal release"), ({"python": "2.7"}, r"Python 2\.7"), ({"nonce": b"short"}, "malformed")],
)
def test_who_would_not_understand_is_told_and_learns_nothing(changes: dict[str, object], words: str) -> None:
    connecting, accepting = sides(**changes)
    with pytest.raises(HandshakeError, match=words):
        accepting.receive(connecting.to_send())
    with pytest.raises(HandshakeError, match=words):
        connecting.receive(accepting.to_send())
    assert connecting.reply == frames.HelloReply(b"", b"", b"", b"", connecting.reply.error if connecting.reply else "")


def test_a_refusal_reaches_the_peer() -> None:
    connecting, accepting = sides()
    accepting.receive(connecting.to_send())
    accepting.refuse("go away")
    with pytest.raises(HandshakeError, match="go away") as refused:
        connecting.receive(accepting.to_send())
    assert str(pickle.loads(pickle.dumps(refused.value))) == "go away"


@pytest.mark.parametrize("expects", [(NODE, b"x" * 16), (b"x" * 16, WORKER)])
def test_another_process_at_the_address_is_not_taken_for_the_one_meant(expects: tuple[bytes, bytes]) -> None:
    connecting, accepting = sides(expects=expects)
    accepting.receive(connecting.to_send())
    accepting.accept()
    with pytest.raises(HandshakeError, match="another process"):
        connecting.receive(accepting.to_send())


@pytest.mark.parametrize(
    "data",
    [
        codec.LENGTH.pack(codec.MAX_HANDSHAKE_FRAME_BYTES + 1),
        codec.LENGTH.pack(200 * 1024 * 1024),
        codec.encode_frame(frames.FlushLogs(1)),
        codec.encode_frame(frames.HelloProof(b"x" * 32)),
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(64),
    ],
    ids=["over the limit", "200 MiB", "no hello", "proof first", "http", "empty frames"],
)
def test_anything_else_is_refused(data: bytes) -> None:
    connecting, accepting = sides()
    for side in (connecting, accepting):
        side.to_send()
        with pytest.raises(HandshakeError):
            side.receive(data)
        assert side.to_send() == b""


@given(st.lists(st.binary(min_size=1, max_size=200), max_size=20))
def test_random_bytes_are_refused_or_waited_for(pieces: list[bytes]) -> None:
    for side in sides():
        side.to_send()
        try:
            assert not any(side.receive(piece) for piece in pieces)
        except HandshakeError:
            pass
        assert side.to_send() == b""


def test_what_is_out_of_turn_is_a_defect_of_the_caller() -> None:
    connecting, accepting = sides()
    with pytest.raises(RuntimeError):
        accepting.accept()
    accepting.receive(connecting.to_send())
    with pytest.raises(RuntimeError):
        accepting.receive(b"")
    accepting.accept()
    for again in (accepting.accept, lambda: accepting.refuse("too late")):
        with pytest.raises(RuntimeError):
            again()
    connecting.receive(accepting.to_send())
    accepting.receive(connecting.to_send())
    for side in (connecting, accepting):
        with pytest.raises(RuntimeError):
            side.receive(b"")
