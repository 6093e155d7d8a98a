from __future__ import annotations

import pickle

import pytest

from shoal_common.channel import frames, handshake

NONCE_C, NONCE_S = b"c" * handshake.NONCE_BYTES, b"s" * handshake.NONCE_BYTES


def hello(version: int = frames.PROTOCOL_VERSION, python: str = "", nonce: bytes = NONCE_C) -> frames.Hello:
    return frames.Hello(version, nonce, "driver", b"n", b"w", b"job1", 1, python or handshake.python_minor(), None)


def reply(token: str, **changes: str) -> frames.HelloReply:
    return frames.HelloReply(NONCE_S, handshake.answer_hello(token, hello(), NONCE_S), b"n", b"w", **changes)


def test_two_sides_with_the_same_token_accept_each_other() -> None:
    assert handshake.check_hello(hello()) == ""
    handshake.check_reply("token", NONCE_C, reply("token"))
    proof = frames.HelloProof(handshake.prove("token", b"connecting", NONCE_C, NONCE_S))
    handshake.check_proof("token", NONCE_C, NONCE_S, proof)


def test_each_side_refuses_the_wrong_token() -> None:
    with pytest.raises(handshake.HandshakeError, match="wrong token"):
        handshake.check_reply("token", NONCE_C, reply("other"))
    proof = frames.HelloProof(handshake.prove("other", b"connecting", NONCE_C, NONCE_S))
    with pytest.raises(handshake.HandshakeError, match="wrong token"):
        handshake.check_proof("token", NONCE_C, NONCE_S, proof)


def test_a_proof_cannot_be_reflected_to_its_sender() -> None:
    reflected = frames.HelloProof(reply("token").proof)
    with pytest.raises(handshake.HandshakeError):
        handshake.check_proof("token", NONCE_C, NONCE_S, reflected)


def test_a_proof_cannot_be_replayed_for_another_nonce() -> None:
    proof = frames.HelloProof(handshake.prove("token", b"connecting", NONCE_C, NONCE_S))
    with pytest.raises(handshake.HandshakeError):
        handshake.check_proof("token", NONCE_C, b"t" * handshake.NONCE_BYTES, proof)


def test_other_versions_are_told_why() -> None:
    assert "same Shoal release" in handshake.check_hello(hello(version=99))
    assert "Python 2.7" in handshake.check_hello(hello(python="2.7"))
    assert handshake.check_hello(hello(nonce=b"short"))


def test_the_reason_of_a_refusal_reaches_the_refused() -> None:
    with pytest.raises(handshake.HandshakeError, match="go away") as refused:
        handshake.check_reply("token", NONCE_C, reply("token", error="go away"))
    assert str(pickle.loads(pickle.dumps(refused.value))) == "go away"
