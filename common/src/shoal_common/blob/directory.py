"""``BlobStore`` in a directory, for the embedded profile.

Nothing is flushed to the device: a spilled object is worth no more than the processes that may want it, and they die
with the machine.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import shutil
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from shoal_common.blob.checksums import Manifest, ManifestBuilder, RangeChecker
from shoal_common.blob.file import BlobReader, BlobWriter
from shoal_common.blob.store import CHUNK_BYTES, BlobInfo, check_key, check_prefix
from shoal_common.errors import OutOfDisk

#: Ends the file name of every blob. No key contains it, so that "a" and "a/b" may both exist.
_SUFFIX = "%"
#: Where blobs are written before they are complete; no key begins with a dot.
_UPLOADS = ".uploads"


class DirectoryBlobStore:
    """The directory belongs to one store of one process. File I/O runs in the event loop's default executor."""

    def __init__(self, root: Path, min_free_bytes: int = 0) -> None:
        """``min_free_bytes``: a put that would leave less on the file system raises OutOfDisk."""
        self._root = root
        self._min_free_bytes = min_free_bytes
        self._upload_numbers = itertools.count()
        # Between making a blob's directory and renaming into it, a deletion must not remove it as empty.
        self._tree_lock = threading.Lock()
        shutil.rmtree(root / _UPLOADS, ignore_errors=True)  # what a killed predecessor has left

    async def put(self, key: str, chunks: AsyncIterator[bytes], section_sizes: Sequence[int] = ()) -> BlobInfo:
        check_key(key)
        upload = self._root / _UPLOADS / str(next(self._upload_numbers))
        writer = BlobWriter(upload, ManifestBuilder(key, section_sizes))
        try:
            async for chunk in chunks:
                await asyncio.to_thread(self._append, key, writer, chunk)
            manifest = await asyncio.to_thread(self._publish, key, writer, upload)
        finally:
            await asyncio.shield(asyncio.to_thread(writer.discard))
        return BlobInfo(key, manifest.size_bytes, manifest.checksum)

    async def get(self, key: str, offset: int = 0, length: int = 0) -> AsyncIterator[bytes]:
        check_key(key)
        reader = BlobReader(key, self._path(key))
        try:
            manifest = await asyncio.to_thread(reader.manifest)
            end = manifest.end_of(key, offset, length)
            checker = RangeChecker(key, manifest.parts(offset, end - offset))
            while offset < end:
                chunk = await asyncio.to_thread(reader.read, offset, min(CHUNK_BYTES, end - offset), checker)
                yield chunk
                offset += len(chunk)
        finally:
            await asyncio.shield(asyncio.to_thread(reader.close))

    async def delete(self, keys: Sequence[str] = (), prefix: str = "") -> int:
        for key in keys:
            check_key(key)
        check_prefix(prefix)
        return await asyncio.to_thread(self._delete, keys, prefix)

    async def list(self, prefix: str = "") -> Sequence[BlobInfo]:
        check_prefix(prefix)
        return await asyncio.to_thread(self._list, prefix)

    def _path(self, key: str) -> Path:
        return self._root / (key + _SUFFIX)

    def _append(self, key: str, writer: BlobWriter, chunk: bytes) -> None:
        with self._out_of_disk(key):
            self._check_free(key, len(chunk))
            writer.append(chunk)

    def _publish(self, key: str, writer: BlobWriter, upload: Path) -> Manifest:
        path = self._path(key)
        with self._out_of_disk(key):
            manifest = writer.finish()
            with self._tree_lock:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                upload.replace(path)
        return manifest

    def _check_free(self, key: str, coming_bytes: int) -> None:
        if not self._min_free_bytes:
            return
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        usage = os.statvfs(self._root)
        left = usage.f_bavail * usage.f_frsize - coming_bytes
        if left < self._min_free_bytes:
            raise OutOfDisk(
                f"the disk of {self._root} is full: storing {key} would leave {max(left, 0)} bytes, at least "
                f"{self._min_free_bytes} must stay free; free some, or put the directory on a larger disk"
            )

    @contextmanager
    def _out_of_disk(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise OutOfDisk(
                f"the disk of {self._root} is full: {key} was not stored; free some, or put the directory on a larger "
                "disk"
            ) from error

    def _delete(self, keys: Sequence[str], prefix: str) -> int:
        if prefix:
            keys = [*keys, *(key for key, _path in self._walk(prefix))]
        deleted = 0
        for key in keys:
            path = self._path(key)
            with self._tree_lock:
                try:
                    path.unlink()
                except FileNotFoundError:
                    continue
                deleted += 1
                self._remove_empty(path.parent)
        return deleted

    def _remove_empty(self, directory: Path) -> None:
        while directory != self._root:
            try:
                directory.rmdir()
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    return
                raise
            directory = directory.parent

    def _list(self, prefix: str) -> Sequence[BlobInfo]:
        blobs = []
        for key, path in self._walk(prefix):
            try:
                blobs.append(BlobInfo(key, path.stat().st_size))
            except FileNotFoundError:  # deleted meanwhile
                continue
        return sorted(blobs, key=lambda blob: blob.key)

    def _walk(self, prefix: str) -> Iterator[tuple[str, Path]]:
        """Key and file of every blob whose key begins with ``prefix``."""
        top = self._root / prefix.rpartition("/")[0]
        for directory, subdirectories, names in os.walk(top):
            if directory == str(self._root) and _UPLOADS in subdirectories:
                subdirectories.remove(_UPLOADS)
            for name in names:
                path = Path(directory, name)
                key = path.relative_to(self._root).as_posix().removesuffix(_SUFFIX)
                if key.startswith(prefix):
                    yield key, path
