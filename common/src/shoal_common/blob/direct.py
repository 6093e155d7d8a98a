"""Blobs straight between a process and the S3 server, by requests that the objectstore service has signed.

The bytes go from memory to socket and back without a copy in between, and past the service: through gRPC, twice,
they would take several times the CPU that the S3 server itself needs (see docs/blobs.md).
"""

from __future__ import annotations

import asyncio
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol, TypeVar
from urllib.parse import SplitResult, urlsplit

from shoal_common.blob.checksums import Manifest, ManifestBuilder, Part, RangeChecker
from shoal_common.blob.footer import encode_footer
from shoal_common.blob.store import CHUNK_BYTES
from shoal_common.errors import DataLoss

#: Transfers at once; more wait for their turn.
TRANSFERS = 8
#: The S3 server has so long to accept a connection, and to take or give each chunk, in seconds.
TIMEOUT_S = 10.0
#: Larger blobs cannot be stored by one request.
MAX_BYTES = 5 * 1024**3 - 1024**2
#: Smaller sections are copied together, so that many of them are not as many packets.
_SMALL_BYTES = 64 * 1024
#: A connection that has been idle for longer may have been closed by the server, in seconds.
_IDLE_S = 10.0

T = TypeVar("T")


class SignedPut(NamedTuple):
    #: A secret: whoever has it may store this blob.
    url: str
    #: The authority that signed the S3 server's certificate; b"" = those that the system trusts.
    ca_pem: bytes


class SignedGet(NamedTuple):
    url: str
    ca_pem: bytes
    #: Of the object that the checksums are of.
    tag: str
    #: Where the range begins, in bytes.
    offset: int
    parts: Sequence[Part]


class SigningStore(Protocol):
    """A `BlobStore` to which clients have a way of their own. Both raise as its ``put`` and ``get`` do."""

    async def sign_put(self, key: str) -> SignedPut: ...

    async def sign_get(self, key: str, offset: int, length: int) -> SignedGet: ...


class DirectError(Exception):
    """The transfer did not succeed; why is for the service to find out, which is asked to do it instead."""

    #: Whether the S3 server was not reached at all, so that other transfers need not try soon.
    unreached = False


class Unreached(DirectError):
    unreached = True


class DirectTransfers:
    """Belongs to one event loop; transfers run in threads. ``await close()`` ends it."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(TRANSFERS, thread_name_prefix="blob")
        self._connections = _Connections()

    async def close(self) -> None:
        """Transfers have ended, or their callers were cancelled."""
        await asyncio.to_thread(self._threads.shutdown)
        self._connections.close()

    async def put(self, key: str, signed: SignedPut, sections: Sequence[memoryview]) -> Manifest:
        """Store a blob. Raises: DirectError."""

        def work(transfer: _Transfer) -> Manifest:
            builder = ManifestBuilder(key, [len(section) for section in sections])
            for section in sections:
                builder.feed(section)
            manifest = builder.finish()
            footer = encode_footer(manifest)
            body = _body([*sections, memoryview(footer)])
            headers = {"Content-Length": str(manifest.size_bytes + len(footer))}
            transfer.request("PUT", body, headers).read()
            return manifest

        return await self._run(signed.url, signed.ca_pem, work)

    async def get_into(self, key: str, signed: SignedGet, target: memoryview) -> None:
        """Fill ``target``, which is as long as the range. Raises: DirectError."""

        def work(transfer: _Transfer) -> None:
            checker = RangeChecker(key, signed.parts)
            headers = {"Range": f"bytes={signed.offset}-{signed.offset + len(target) - 1}", "If-Match": signed.tag}
            answer = transfer.request("GET", None, headers)
            filled = 0
            while filled < len(target):
                chunk = target[filled : filled + CHUNK_BYTES]
                got = answer.readinto(chunk)
                if not got:
                    raise DirectError("the answer ended early")
                checker.feed(chunk[:got])
                filled += got
            answer.read()

        await self._run(signed.url, signed.ca_pem, work)

    async def _run(self, url: str, ca_pem: bytes, work: Callable[[_Transfer], T]) -> T:
        """``work`` in a thread, which has ended when this returns or raises: it uses the caller's memory."""
        transfer = _Transfer(self._connections, urlsplit(url), ca_pem)
        future = asyncio.get_running_loop().run_in_executor(self._threads, transfer.run, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            transfer.abort()
            while not future.done():
                try:
                    await asyncio.wait({future})
                except asyncio.CancelledError:
                    continue
            future.exception()  # that of the abort; never asked for, it would be logged
            raise


class _Transfer:
    """One request in a thread, on a connection of its own."""

    def __init__(self, connections: _Connections, url: SplitResult, ca_pem: bytes) -> None:
        self._connections = connections
        self._url = url
        self._ca_pem = ca_pem
        self._lock = threading.Lock()
        self._connection: http.client.HTTPConnection | None = None
        #: The connection's; when the server wants to close it, http.client gives it to the answer.
        self._socket: socket.socket | None = None
        self._answer: http.client.HTTPResponse | None = None
        self._aborted = False

    def run(self, work: Callable[[_Transfer], T]) -> T:
        """Raises: DirectError."""
        try:
            result = work(self)
        except (OSError, http.client.HTTPException, DataLoss) as error:
            raise DirectError(f"{type(error).__name__}: {error}") from error
        else:
            self._give_back()
            return result
        finally:
            with self._lock:
                self._socket = None
                if self._answer is not None:
                    self._answer.close()
                if self._connection is not None:
                    self._connection.close()
                    self._connection = None

    def request(
        self, method: str, body: Iterator[memoryview | bytes] | None, headers: dict[str, str]
    ) -> http.client.HTTPResponse:
        """Raises: DirectError unless it succeeds."""
        connection = self._connected()
        connection.request(method, f"{self._url.path}?{self._url.query}", body, headers)
        answer = self._answer = connection.getresponse()
        if answer.status != (200 if method == "PUT" else 206):
            raise DirectError(f"status {answer.status}")
        return answer

    def abort(self) -> None:
        """From any thread: what goes on in the transfer's fails at once."""
        with self._lock:
            self._aborted = True
            if self._socket is not None:
                try:
                    # Not the method of a TLS socket, which takes away what the other thread is using.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
                except OSError:
                    pass  # the server was faster

    def _connected(self) -> http.client.HTTPConnection:
        connection = self._connections.take(self._url, self._ca_pem)
        try:
            if connection.sock is None:
                connection.connect()
        except OSError as error:
            connection.close()
            raise Unreached(f"{self._url.netloc} is not reached: {error}") from error
        with self._lock:
            self._connection, self._socket = connection, connection.sock
            if self._aborted:
                raise DirectError("given up")
        return connection

    def _give_back(self) -> None:
        with self._lock:
            if self._connection is not None and not self._aborted:
                self._connections.give_back(self._url, self._ca_pem, self._connection)
                self._connection = None


class _Connections:
    """Idle connections, the last used one last. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[tuple[str, str, bytes], list[tuple[float, http.client.HTTPConnection]]] = {}

    def take(self, url: SplitResult, ca_pem: bytes) -> http.client.HTTPConnection:
        """An idle connection, or one that is to be connected."""
        with self._lock:
            idle = self._idle.get((url.scheme, url.netloc, ca_pem), [])
            while idle:
                since, connection = idle.pop()
                if time.monotonic() - since < _IDLE_S:
                    return connection
                connection.close()
        if url.scheme == "https":
            context = ssl.create_default_context(cadata=ca_pem.decode() or None)
            return http.client.HTTPSConnection(url.netloc, timeout=TIMEOUT_S, context=context)
        return http.client.HTTPConnection(url.netloc, timeout=TIMEOUT_S)

    def give_back(self, url: SplitResult, ca_pem: bytes, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            idle = self._idle.setdefault((url.scheme, url.netloc, ca_pem), [])
            idle.append((time.monotonic(), connection))

    def close(self) -> None:
        with self._lock:
            for idle in self._idle.values():
                for _since, connection in idle:
                    connection.close()
            self._idle.clear()


def _body(sections: Sequence[memoryview]) -> Iterator[memoryview | bytes]:
    """Pieces of at most a chunk, each of which has the timeout for itself."""
    small: list[memoryview] = []
    small_bytes = 0
    for section in sections:
        if len(section) < _SMALL_BYTES:
            small.append(section)
            small_bytes += len(section)
        if small and (small_bytes >= CHUNK_BYTES - _SMALL_BYTES or len(section) >= _SMALL_BYTES):
            yield b"".join(small)
            small, small_bytes = [], 0
        if len(section) >= _SMALL_BYTES:
            for at in range(0, len(section), CHUNK_BYTES):
                yield section[at : at + CHUNK_BYTES]
    if small:
        yield b"".join(small)
