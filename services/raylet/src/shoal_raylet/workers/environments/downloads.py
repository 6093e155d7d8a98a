"""Packages, from the cluster's blobs or from elsewhere, unpacked in this machine's cache."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import os
import shutil
import urllib.parse
import urllib.request
from collections.abc import Coroutine, Iterable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import structlog

from shoal_common.errors import NotFound, ServiceError
from shoal_common.placement.runtime_env import PACKAGE_PART_BYTES, package_digest, uploaded_wheel
from shoal_raylet.workers.environments.archives import unpack, without_top
from shoal_raylet.workers.environments.cache import Attempt, Entry, EnvironmentCache, SetupFailed

log = structlog.get_logger(__name__)

#: An archive from elsewhere has at most so many bytes.
MAX_DOWNLOAD_BYTES = 2 * 1024**3
#: A server that says nothing for so long is given up, in seconds.
_SILENCE_S = 30.0
_STEP_BYTES = 1 << 20

T = TypeVar("T")


class StoredPackages(Protocol):
    """The cluster's blobs, as `shoal_raylet.transfer.packages` keeps them. Raises: NotFound, ServiceError."""

    async def size(self, place: str) -> int: ...

    async def part(self, place: str, number: int) -> bytes: ...

    async def put(self, place: str, number: int, data: bytes) -> None: ...

    async def used(self, places: Iterable[str]) -> None:
        """Raises nothing."""


class Downloads:
    """Thread-safe; its methods wait, in other threads than the event loop's."""

    def __init__(self, cache: EnvironmentCache, stored: StoredPackages, loop: asyncio.AbstractEventLoop) -> None:
        self._cache = cache
        self._stored = stored
        self._loop = loop

    def package(self, uri: str, attempt: Attempt) -> Entry:
        """Its directory ``unpacked`` has what is in the archive. What a URI names must not change: it is downloaded
        once. Raises: SetupFailed."""
        digest = package_digest(uri)
        name = f"package-{digest or hashlib.sha256(uri.encode()).hexdigest()}"
        entry = self._cache.entry(name, lambda place: self._fill(uri, digest, place, attempt), attempt)
        if digest is not None:
            entry.stored_at = f"package/{digest}"
        return entry

    def wheel(self, requirement: str, directory: Path, attempt: Attempt) -> str:
        """The requirement, with the file in ``directory`` in place of one that was uploaded. Raises: SetupFailed."""
        wheel = uploaded_wheel(requirement)
        if wheel is None:
            return requirement
        digest, name = wheel
        directory.mkdir(exist_ok=True)
        self._from_blobs(digest, directory / name, attempt)
        return str(directory / name)

    def installed(self, name: str, archive: Path, attempt: Attempt) -> bool:
        """Fills ``archive`` with what another node has installed; False = none has, or it is not to be had."""
        try:
            self._copy(f"environment/{name}", archive, attempt)
        except NotFound:
            return False
        except ServiceError as error:
            log.warning("environment_not_fetched", name=name, reason=str(error))
            return False
        return True

    def store_installed(self, name: str, archive: Path, attempt: Attempt) -> None:
        """For other nodes, and later sessions of this cluster; a failure costs only them."""
        place = f"environment/{name}"
        try:
            with archive.open("rb") as file:
                number = 0
                while data := file.read(PACKAGE_PART_BYTES):
                    self._await(self._stored.put(place, number, data), attempt)
                    number += 1
                self._await(self._stored.put(place, -1, str(file.tell()).encode()), attempt)
        except ServiceError as error:
            log.warning("environment_not_stored", name=name, reason=str(error))

    def _fill(self, uri: str, digest: str | None, place: Path, attempt: Attempt) -> None:
        archive, unpacked = place / "archive", place / "inside"
        if digest is None:
            _download(uri, archive, attempt)
        else:
            self._from_blobs(digest, archive, attempt)
        unpacked.mkdir()
        unpack(archive, unpacked, attempt)
        archive.unlink()
        top = unpacked if digest else without_top(unpacked)
        top.rename(place / "unpacked")
        if top != unpacked:
            unpacked.rmdir()

    def _from_blobs(self, digest: str, archive: Path, attempt: Attempt) -> None:
        try:
            found = self._copy(f"package/{digest}", archive, attempt)
        except NotFound as error:
            raise SetupFailed("the cluster has no such package (any more): upload it again") from error
        except ServiceError as error:
            raise SetupFailed(f"the cluster's blobs cannot be read: {error}") from error
        if found != digest:
            raise SetupFailed("it is damaged: what is stored has another checksum than its name says")

    def _copy(self, place: str, archive: Path, attempt: Attempt) -> str:
        """Its SHA-256. Raises: NotFound, ServiceError, SetupFailed."""
        summed = hashlib.sha256()
        size = self._await(self._stored.size(place), attempt)
        with archive.open("wb") as file:
            number = 0
            while file.tell() < size:
                part = self._await(self._stored.part(place, number), attempt)
                summed.update(part)
                file.write(part)
                number += 1
        return summed.hexdigest()

    def _await(self, wanted: Coroutine[Any, Any, T], attempt: Attempt) -> T:
        future = asyncio.run_coroutine_threadsafe(wanted, self._loop)
        while True:
            try:
                return future.result(min(1.0, attempt.left()))
            except TimeoutError:
                if future.done():
                    raise
            except SetupFailed:
                future.cancel()
                raise


def _download(uri: str, archive: Path, attempt: Attempt) -> None:
    """Raises: SetupFailed."""
    scheme = uri.partition("://")[0]
    try:
        if scheme == "file":
            shutil.copyfile(urllib.request.url2pathname(urllib.parse.urlsplit(uri).path), archive)
        elif scheme == "s3":
            _download_s3(uri, archive)
        else:
            _download_http(uri, archive, attempt)
    except (OSError, http.client.HTTPException) as error:
        raise SetupFailed(f"it cannot be downloaded: {error}") from error


def _download_http(uri: str, archive: Path, attempt: Attempt) -> None:
    request = urllib.request.Request(uri, headers={"User-Agent": "shoal"})
    with urllib.request.urlopen(request, timeout=_SILENCE_S) as answer, archive.open("wb") as file:
        while block := answer.read(_STEP_BYTES):
            attempt.left()
            file.write(block)
            if file.tell() > MAX_DOWNLOAD_BYTES:
                raise SetupFailed(f"it has more than {MAX_DOWNLOAD_BYTES} bytes")


def _download_s3(uri: str, archive: Path) -> None:
    """As the machine's AWS settings say: its environment variables, files or role."""
    try:
        import minio
        from minio.credentials.providers import AWSConfigProvider, ChainedProvider, EnvAWSProvider, IamAwsProvider
    except ImportError:
        raise SetupFailed("s3:// needs the package minio on the nodes: install shoal-common[s3]") from None
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    endpoint = urllib.parse.urlsplit(os.environ.get("AWS_ENDPOINT_URL") or "https://s3.amazonaws.com")
    client = minio.Minio(
        endpoint.netloc,
        secure=endpoint.scheme == "https",
        credentials=ChainedProvider([EnvAWSProvider(), AWSConfigProvider(), IamAwsProvider()]),
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
    )
    try:
        if (client.stat_object(bucket, key).size or 0) > MAX_DOWNLOAD_BYTES:
            raise SetupFailed(f"it has more than {MAX_DOWNLOAD_BYTES} bytes")
        client.fget_object(bucket, key, str(archive))
    except minio.error.MinioException as error:
        raise SetupFailed(f"it cannot be downloaded: {error}") from error
    except ValueError as error:  # of its credentials, and of what is no name of a bucket
        raise SetupFailed(f"it cannot be downloaded: {error}") from error
