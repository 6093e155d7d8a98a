"""``python -m shoal_common.service.healthcheck HOST:PORT``: exit 0 when the service there says that it is serving.

With mutual TLS it asks as the process does in whose environment it runs. A container runtime runs this in every
container, every few seconds, so the one call is spoken by hand: importing grpc takes longer than all of the rest.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # without TLS nobody pays for its import
    from shoal_common.tls import Tls

DEADLINE_S = 3.0

# Frames of HTTP/2: three bytes of length, kind, flags, four bytes of stream.
_DATA, _HEADERS, _RST_STREAM, _SETTINGS = 0, 1, 3, 4
_END_STREAM, _END_HEADERS = 1, 4
_FRAME_HEADER_BYTES = 9
#: A message of gRPC: not compressed, two bytes; field 1, the status, is 1.
_SERVING = bytes([0, 0, 0, 0, 2, 8, 1])
_EMPTY = bytes(5)


def check(address: str) -> str:
    """Why the service is not healthy, or ""."""
    tls = None
    if any(variable.startswith("SHOAL_TLS_") for variable in os.environ):
        from shoal_common.tls import Tls, TlsError

        try:
            tls = Tls.from_environ(os.environ)
        except TlsError as error:
            return str(error)
    try:
        answer = _ask(address, tls)
    except OSError as error:
        return f"{address} does not answer: {error}"
    return "" if answer == _SERVING else f"{address} does not say that it is serving"


def _ask(address: str, tls: Tls | None) -> bytes:
    """What the health service answers to an empty request, without a token. Raises: OSError."""
    deadline = time.monotonic() + DEADLINE_S
    host, _, port = address.rpartition(":")
    sock = socket.create_connection((host.strip("[]"), int(port)), DEADLINE_S)
    try:
        if tls is not None:
            sock = _secured(sock, tls)
        sock.sendall(_request(address, "http" if tls is None else "https"))
        answer = b""
        while True:
            header = _read(sock, _FRAME_HEADER_BYTES, deadline)
            kind, flags = header[3], header[4]
            payload = _read(sock, int.from_bytes(header[:3]), deadline)
            if kind == _DATA:
                answer += payload
            if kind == _RST_STREAM or (kind in (_DATA, _HEADERS) and flags & _END_STREAM):
                return answer
    finally:
        sock.close()


def _secured(sock: socket.socket, tls: Tls) -> socket.socket:
    from shoal_common.tls import SERVER_NAME

    context = tls.context(server=False)
    context.set_alpn_protocols(["h2"])
    return context.wrap_socket(sock, server_hostname=SERVER_NAME)


def _request(authority: str, scheme: str) -> bytes:
    fields = {
        ":method": "POST",
        ":scheme": scheme,
        ":path": "/grpc.health.v1.Health/Check",
        ":authority": authority,
        "content-type": "application/grpc",
        "te": "trailers",
    }
    headers = b"".join(b"\0" + _string(name) + _string(value) for name, value in fields.items())
    return (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + _frame(_SETTINGS, 0, 0, b"")
        + _frame(_HEADERS, _END_HEADERS, 1, headers)
        + _frame(_DATA, _END_STREAM, 1, _EMPTY)
    )


def _string(text: str) -> bytes:
    """Up to 126 characters, as in a field of a header that is in no table (RFC 7541)."""
    return bytes([len(text)]) + text.encode("ascii")


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def _read(sock: socket.socket, size: int, deadline: float) -> bytes:
    """Raises: OSError."""
    data = b""
    while len(data) < size:
        sock.settimeout(max(deadline - time.monotonic(), 0.001))
        part = sock.recv(size - len(data))
        if not part:
            raise ConnectionError("it closed the connection")
        data += part
    return data


def main(argv: list[str]) -> int:
    if len(argv) != 1:
        print("usage: python -m shoal_common.service.healthcheck HOST:PORT", file=sys.stderr)
        return 2
    reason = check(argv[0])
    if reason:
        print(reason, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
