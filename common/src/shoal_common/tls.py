"""Mutual TLS between the processes of a cluster: one private authority, and a certificate for each process.

Being signed by the cluster's authority is what admits a process; hosts come and go, so their names are not in the
certificates. Every certificate names `SERVER_NAME` instead, and clients check that: the authority may so sign other
things as well. The token is asked for on top.
"""

from __future__ import annotations

import functools
import os
import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a worker speaks TLS and no gRPC
    import grpc

#: They name the files of this process's identity.
VARIABLES = ("SHOAL_TLS_CA", "SHOAL_TLS_CERT", "SHOAL_TLS_KEY")
#: The subject alternative name of every certificate of a cluster.
SERVER_NAME = "shoal"
#: Plaintext of one TLS record at most, in bytes.
_RECORD_BYTES = 16 * 1024
#: What may be sent before the handshake has ended, in bytes: the first frame of the channel, with room to spare.
MAX_EARLY_BYTES = 64 * 1024


class TlsError(Exception):
    """A certificate, its key or the authority cannot be used; the message names the file, never its contents."""


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files: the authority that signed every process of the cluster, this process's certificate, and its key."""

    ca: Path
    cert: Path
    key: Path

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Tls | None:
        """From the files that ``SHOAL_TLS_CA``, ``SHOAL_TLS_CERT`` and ``SHOAL_TLS_KEY`` name; None when none does: the
        cluster speaks without TLS.

        Raises: TlsError when only some are given, or they cannot be used.
        """
        ca, cert, key = map(environ.get, VARIABLES)
        if not (ca or cert or key):
            return None
        if not (ca and cert and key):
            raise TlsError(f"mutual TLS needs all three files: {', '.join(VARIABLES)}")
        tls = cls(Path(ca), Path(cert), Path(key))
        tls.context(server=False)
        return tls

    @functools.cache  # noqa: B019 - a process has one identity
    def context(self, *, server: bool) -> ssl.SSLContext:
        """For plain sockets. Raises: TlsError."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(self.ca)
        except (OSError, ssl.SSLError) as error:
            raise TlsError(f"the authority {self.ca} cannot be used: {error}") from error
        try:
            context.load_cert_chain(self.cert, self.key)
        except (OSError, ssl.SSLError) as error:
            raise TlsError(f"the certificate {self.cert} with the key {self.key} cannot be used: {error}") from error
        return context

    def server_credentials(self) -> grpc.ServerCredentials:
        import grpc

        ca, cert, key = map(_read, (self.ca, self.cert, self.key))
        return grpc.ssl_server_credentials([(key, cert)], root_certificates=ca, require_client_auth=True)

    def channel_credentials(self) -> grpc.ChannelCredentials:
        import grpc

        ca, cert, key = map(_read, (self.ca, self.cert, self.key))
        return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=cert)

    @property
    def channel_options(self) -> list[tuple[str, Any]]:
        """By which name a gRPC client knows its server."""
        return [("grpc.ssl_target_name_override", SERVER_NAME)]


@dataclass(frozen=True, slots=True)
class ServerTls:
    """TLS to a server that is not a process of the cluster, as etcd and NATS are."""

    #: PEM file of the authority that signed the server's certificate.
    ca: Path
    #: PEM files of this process's certificate and key, for a server that asks for one.
    cert: Path | None = None
    key: Path | None = None
    #: The name that the server's certificate has; empty = the host of its address.
    server_name: str = ""

    @classmethod
    def from_files(cls, ca: Path | None, cert: Path | None, key: Path | None, server_name: str) -> ServerTls | None:
        """None when no authority is given: the server speaks without TLS. Raises: TlsError."""
        if ca is None:
            if cert is not None or key is not None:
                raise TlsError("a certificate and key without the server's authority (ca) are of no use: name its file")
            return None
        if (cert is None) != (key is None):
            raise TlsError("a certificate (cert) and its key (key) go together")
        tls = cls(ca, cert, key, server_name)
        tls.context()
        return tls

    def context(self) -> ssl.SSLContext:
        """For plain sockets. Raises: TlsError."""
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except (OSError, ssl.SSLError) as error:
            raise TlsError(f"the authority {self.ca} cannot be used: {error}") from error
        if self.cert is not None:
            try:
                context.load_cert_chain(self.cert, self.key)
            except (OSError, ssl.SSLError) as error:
                raise TlsError(
                    f"the certificate {self.cert} with the key {self.key} cannot be used: {error}"
                ) from error
        return context

    def channel_credentials(self) -> grpc.ChannelCredentials:
        import grpc

        return grpc.ssl_channel_credentials(
            root_certificates=_read(self.ca),
            private_key=_read(self.key) if self.key else None,
            certificate_chain=_read(self.cert) if self.cert else None,
        )


class TlsSocket:
    """A TLS connection over a non-blocking socket, with the socket's own interface and errors.

    Code that is written for a plain non-blocking socket works on it: whatever cannot go on raises
    ``BlockingIOError``, the end of the peer reads as ``b""``, a failed handshake is an ``OSError``. The socket may
    still be connecting; the handshake goes on whenever there is something to read. What is sent before its end is kept
    until then, so that nobody polls for room that is there all the time. Thread-safe, as a socket is.
    """

    def __init__(self, sock: socket.socket, tls: Tls, *, server: bool) -> None:
        sock.setblocking(False)
        self._plain = sock
        self._fd = sock.fileno()
        self._context = tls.context(server=server)
        self._server = server
        #: None until the socket is connected.
        self._tls: ssl.SSLSocket | None = None
        # OpenSSL reads while it writes (and the reverse), and must not be entered twice.
        self._lock = threading.Lock()
        self._established = False
        self._early = b""

    def fileno(self) -> int:
        return self._fd

    def setblocking(self, flag: bool) -> None:
        if flag:
            raise ValueError("TLS sockets of the channel do not block")

    def recv(self, size: int) -> bytes:
        """All that has been decrypted, up to ``size`` and a record: poll() does not tell of it."""
        with self._lock:
            tls = self._connected()
            if not self._established and not self._shake_hands(tls):
                raise BlockingIOError("the TLS handshake is not finished")
            parts: list[bytes] = []
            got = 0
            while got < size or tls.pending():
                try:
                    part = tls.recv(_RECORD_BYTES)
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
                    if parts:
                        break
                    raise BlockingIOError(str(error)) from error
                if not part:
                    break
                parts.append(part)
                got += len(part)
            return b"".join(parts)

    def send(self, data: bytes | bytearray | memoryview) -> int:
        with self._lock:
            tls = self._connected()
            if not self._established and not self._shake_hands(tls):
                self._early += data
                if len(self._early) > MAX_EARLY_BYTES:
                    raise OSError("too much is sent before the TLS handshake is finished")
                return len(data)
            view = memoryview(data)
            sent = 0
            while sent < len(view):
                # Record by record: OpenSSL takes a larger piece as a whole or not at all.
                try:
                    sent += tls.send(view[sent : sent + _RECORD_BYTES])
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
                    if sent:
                        break
                    raise BlockingIOError(str(error)) from error
            return sent

    def close(self) -> None:
        (self._tls or self._plain).close()

    def _connected(self) -> ssl.SSLSocket:
        """Raises: BlockingIOError while the socket is connecting, OSError when it could not."""
        if self._tls is None:
            if problem := self._plain.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(problem, os.strerror(problem))
            try:
                self._plain.getpeername()
            except OSError as error:
                raise BlockingIOError("the socket is not connected yet") from error
            self._tls = self._context.wrap_socket(
                self._plain,
                server_side=self._server,
                do_handshake_on_connect=False,
                server_hostname=None if self._server else SERVER_NAME,
            )
        return self._tls

    def _shake_hands(self, tls: ssl.SSLSocket) -> bool:
        """Raises: OSError when the peer is not of this cluster."""
        try:
            tls.do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        self._established = True
        early, self._early = self._early, b""
        if early and tls.send(early) != len(early):
            raise OSError("the first bytes after the TLS handshake did not fit in the socket's buffer")
        return True


def advice(tls: Tls | None) -> str:
    """For the message of a connection that failed: the two sides do not notice more than that they differ in this."""
    if tls is None:
        return f"This process spoke without TLS; where the cluster speaks it, set {', '.join(VARIABLES)}."
    return f"This process spoke mutual TLS; the cluster must, too, with certificates of the authority {tls.ca}."


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TlsError(f"{path} cannot be read: {error.strerror}") from error
