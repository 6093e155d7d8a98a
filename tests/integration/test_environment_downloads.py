"""Archives of runtime environments from an HTTPS server and from S3, as a node fetches them."""

from __future__ import annotations

import asyncio
import functools
import http.server
import io
import ssl
import threading
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from support.certificates import Authority
from support.processes import PATIENCE_S
from support.servers import MinioServer

from shoal_raylet.workers.environments.cache import Attempt, EnvironmentCache, SetupFailed
from shoal_raylet.workers.environments.downloads import Downloads


def attempt() -> Attempt:
    """Its time begins when it is made."""
    return Attempt(PATIENCE_S, threading.Event())


class NoBlobs:
    """Nothing here comes from the cluster's blobs."""

    async def size(self, place: str) -> int:
        raise NotImplementedError

    async def part(self, place: str, number: int) -> bytes:
        raise NotImplementedError

    async def put(self, place: str, number: int, data: bytes) -> None:
        raise NotImplementedError

    async def used(self, places: Iterable[str]) -> None:
        raise NotImplementedError


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        zipped.writestr("repository-main/module.py", "VALUE = 1")
    return file.getvalue()


@pytest.fixture
def downloads(tmp_path: Path) -> Iterator[Downloads]:
    loop = asyncio.new_event_loop()
    yield Downloads(EnvironmentCache(tmp_path / "cache"), NoBlobs(), loop)
    loop.close()


def fetched(downloads: Downloads, uri: str) -> str:
    entry = downloads.package(uri, attempt())
    try:
        return (entry.path / "unpacked" / "module.py").read_text()
    finally:
        entry.close()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def https(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a server with an archive ``x.zip``, and the file of the authority of its certificate."""
    directory = tmp_path / "served"
    directory.mkdir()
    (directory / "x.zip").write_bytes(archive())
    authority = Authority(tmp_path / "certificates")
    identity = authority.issue()
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(QuietHandler, directory=str(directory))
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.cert, identity.key)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=[0.01])
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}", authority.ca
    server.shutdown()
    thread.join()
    server.server_close()


def test_https(downloads: Downloads, https: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    address, ca = https
    with pytest.raises(SetupFailed, match=r"cannot be downloaded: .*CERTIFICATE_VERIFY_FAILED"):
        fetched(downloads, f"{address}/x.zip")
    monkeypatch.setenv("SSL_CERT_FILE", str(ca))
    assert fetched(downloads, f"{address}/x.zip") == "VALUE = 1"
    with pytest.raises(SetupFailed, match="cannot be downloaded: HTTP Error 404"):
        fetched(downloads, f"{address}/y.zip")


def test_s3(downloads: Downloads, minio_server: MinioServer, monkeypatch: pytest.MonkeyPatch) -> None:
    client = minio_server.client()
    client.make_bucket("packages")
    data = archive()
    client.put_object("packages", "some/x.zip", io.BytesIO(data), len(data))
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{minio_server.address}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", minio_server.ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    with pytest.raises(SetupFailed, match=r"cannot be downloaded: .*(SignatureDoesNotMatch|AccessDenied)"):
        fetched(downloads, "s3://packages/some/x.zip")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", minio_server.SECRET_KEY)
    assert fetched(downloads, "s3://packages/some/x.zip") == "VALUE = 1"
    with pytest.raises(SetupFailed, match=r"cannot be downloaded: .*NoSuchKey"):
        fetched(downloads, "s3://packages/some/y.zip")
