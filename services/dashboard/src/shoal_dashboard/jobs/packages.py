"""Packages that clients upload for their jobs: into the cluster's blobs, where nodes look for them.

Shoal's clients name a package by the SHA-256 of its bytes, as nodes do. Ray's have names of their own, of which a blob
below ``package_name/`` keeps what is meant.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import tempfile
import zipfile
from collections.abc import AsyncIterator
from typing import IO, Any

from shoal_common.blob.client import BlobClient
from shoal_common.errors import InvalidRequest, NotFound
from shoal_common.placement.runtime_env import (
    ARCHIVE_SUFFIXES,
    MAX_PACKAGE_BYTES,
    PACKAGE_PART_BYTES,
    package_digest,
    package_place,
    package_uri,
    part_key,
)

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}")
#: Smaller ones are not written to a file on their way.
_IN_MEMORY_BYTES = 4 * 1024 * 1024


class Packages:
    """Belongs to one event loop. Methods raise: the blob client's errors, InvalidRequest for an impossible name."""

    def __init__(self, blobs: BlobClient) -> None:
        self._blobs = blobs

    async def exists(self, protocol: str, name: str) -> bool:
        digest = package_digest(_uri(protocol, name)) or await self._known(name)
        return digest is not None and await self._stored(digest)

    async def store(self, protocol: str, name: str, chunks: AsyncIterator[bytes]) -> None:
        """Raises: InvalidRequest, also for bytes that are not what the name says."""
        uri = _uri(protocol, name)
        summed, size = hashlib.sha256(), 0
        with tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES) as file:
            async for chunk in chunks:
                size += len(chunk)
                if size > MAX_PACKAGE_BYTES:
                    raise InvalidRequest(f"a package has at most {MAX_PACKAGE_BYTES} bytes")
                summed.update(chunk)
                await asyncio.to_thread(file.write, chunk)
            digest = summed.hexdigest()
            named = package_digest(uri)
            if named is not None and named != digest:
                raise InvalidRequest(f"{name} is to hold what has this SHA-256, and what came has {digest}")
            if not await asyncio.to_thread(zipfile.is_zipfile, file):
                raise InvalidRequest(f"{name} is to be a zip archive, and what came is none")
            if not await self._stored(digest):
                await self._put(digest, file, size)
        if named is None:
            await self._blobs.put(_named(name), [digest.encode()])

    async def resolved(self, uri: str) -> str:
        """What nodes know the package by. Raises: NotFound, when nobody has uploaded it."""
        protocol, separator, name = uri.partition("://")
        if protocol != "gcs" or not separator or package_digest(uri):
            return uri
        digest = await self._known(name)
        if digest is None:
            raise NotFound(f"there is no package {uri}: upload it first")
        return package_uri(digest, next(suffix for suffix in ARCHIVE_SUFFIXES if name.endswith(suffix)))

    async def _put(self, digest: str, file: Any, size: int) -> None:
        file.seek(0)
        for part in range(-(-size // PACKAGE_PART_BYTES)):
            data = await asyncio.to_thread(_read, file)
            await self._blobs.put(part_key(package_place(digest), part), [data])
        # What says that all of it is there comes last.
        await self._blobs.put(part_key(package_place(digest), -1), [str(size).encode()])

    async def _stored(self, digest: str) -> bool:
        try:
            await self._blobs.get(part_key(package_place(digest), -1))
        except NotFound:
            return False
        return True

    async def _known(self, name: str) -> str | None:
        try:
            return (await self._blobs.get(_named(name))).decode()
        except NotFound:
            return None


def _read(file: IO[bytes]) -> bytes:
    return file.read(PACKAGE_PART_BYTES)


def _uri(protocol: str, name: str) -> str:
    if protocol != "gcs" or not _NAME.fullmatch(name) or not name.endswith(ARCHIVE_SUFFIXES):
        raise InvalidRequest(f"{protocol}://{name[:200]} is no name of a package: gcs://<letters, digits>.zip or .whl")
    return f"{protocol}://{name}"


def _named(name: str) -> str:
    return f"package_name/{name}"
