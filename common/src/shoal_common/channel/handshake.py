"""Mutual authentication of the framed channel, without I/O.

Both sides prove that they hold the cluster token before either decodes anything but these three
frames: the proof is an HMAC over both nonces and the prover's role, so it can be neither replayed nor
reflected. The token itself never travels.

    connecting                        accepting
    Hello(nonce_c, ...)        --->
                               <---   HelloReply(nonce_s, proof_s)   [+ arena descriptor]
    HelloProof(proof_c)        --->
"""

from __future__ import annotations

import hashlib
import hmac
import os
import sys

from shoal_common.channel import frames

NONCE_BYTES = 32
#: The peer must complete the handshake in this time, in seconds.
HANDSHAKE_TIMEOUT_S = 10.0


class HandshakeError(Exception):
    """The peer was refused, or refused us; the message says why and is safe to show."""

    def __reduce__(self) -> tuple[type[HandshakeError], tuple[str]]:
        return type(self), (str(self),)


def python_minor() -> str:
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def new_nonce() -> bytes:
    return os.urandom(NONCE_BYTES)


def prove(token: str, side: bytes, nonce_c: bytes, nonce_s: bytes) -> bytes:
    """``side``: b"connecting" or b"accepting", who proves."""
    return hmac.new(token.encode(), side + nonce_c + nonce_s, hashlib.sha256).digest()


def check_hello(hello: frames.Hello) -> str:
    """Why this peer cannot be served, or ""."""
    if hello.version != frames.PROTOCOL_VERSION:
        return (
            f"protocol version {hello.version} does not match version {frames.PROTOCOL_VERSION}: "
            "install the same Shoal release on both sides"
        )
    if hello.python != python_minor():
        return (
            f"Python {hello.python} cannot join a cluster that runs Python {python_minor()}: "
            "functions travel as bytecode, which differs between minor versions"
        )
    if len(hello.nonce) != NONCE_BYTES:
        return "malformed handshake"
    return ""


def answer_hello(token: str, hello: frames.Hello, nonce_s: bytes) -> bytes:
    return prove(token, b"accepting", hello.nonce, nonce_s)


def check_reply(token: str, nonce_c: bytes, reply: frames.HelloReply) -> None:
    """Raises: HandshakeError when the peer refused us or lacks the token."""
    if reply.error:
        raise HandshakeError(reply.error)
    if not hmac.compare_digest(reply.proof, prove(token, b"accepting", nonce_c, reply.nonce)):
        raise HandshakeError("wrong token: the peer's proof does not match; use the cluster's own token")


def check_proof(token: str, nonce_c: bytes, nonce_s: bytes, proof: frames.HelloProof) -> None:
    """Raises: HandshakeError when the connecting side lacks the token."""
    if not hmac.compare_digest(proof.proof, prove(token, b"connecting", nonce_c, nonce_s)):
        raise HandshakeError("wrong token: the connecting process does not know this cluster's token")
