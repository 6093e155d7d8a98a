"""``BlobStore`` in a directory, for the embedded profile.

A blob is one file: its bytes, the manifest (msgpack), and a trailer with the manifest's length. So blob and
checksums appear in one atomic rename, and a file that was cut short is noticed. Nothing is flushed to the device: a
spilled object is worth no more than the processes that may want it, and they die with the machine.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import shutil
import struct
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from shoal_common.blob.checksums import Manifest, ManifestBuilder, RangeChecker
from shoal_common.blob.store import CHUNK_BYTES, BlobInfo, check_key, check_prefix
from shoal_common.errors import DataLoss, InvalidRequest, NotFound, OutOfDisk

_TRAILER = struct.Struct("<I8s")
_MAGIC = b"shoalblb"
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
        manifest = ManifestBuilder(key, section_sizes)
        upload = self._root / _UPLOADS / str(next(self._upload_numbers))
        with _out_of_disk(key, self._root):
            file = await asyncio.to_thread(self._begin, upload)
        try:
            async for chunk in chunks:
                with _out_of_disk(key, self._root):
                    await asyncio.to_thread(self._append, key, file, chunk, manifest)
            done = manifest.finish()
            with _out_of_disk(key, self._root):
                await asyncio.to_thread(self._publish, key, file, upload, done)
        finally:
            await asyncio.shield(asyncio.to_thread(_discard, file, upload))
        return BlobInfo(key, done.size_bytes, done.checksum)

    async def get(self, key: str, offset: int = 0, length: int = 0) -> AsyncIterator[bytes]:
        check_key(key)
        file, manifest = await asyncio.to_thread(self._open, key)
        try:
            end = offset + length if length else manifest.size_bytes
            if not 0 <= offset <= end <= manifest.size_bytes:
                raise InvalidRequest(
                    f"{key} has {manifest.size_bytes} bytes: the range from {offset} to {end} is not inside"
                )
            checker = RangeChecker(key, manifest, offset, end - offset)
            while offset < end:
                chunk = await asyncio.to_thread(_read_chunk, file, offset, min(CHUNK_BYTES, end - offset), checker)
                yield chunk
                offset += len(chunk)
        finally:
            file.close()

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

    def _begin(self, upload: Path) -> BinaryIO:
        upload.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return upload.open("xb", buffering=0)

    def _append(self, key: str, file: BinaryIO, chunk: bytes, manifest: ManifestBuilder) -> None:
        manifest.feed(chunk)
        if self._min_free_bytes:
            usage = os.statvfs(self._root)
            free = usage.f_bavail * usage.f_frsize - len(chunk)
            if free < self._min_free_bytes:
                raise OutOfDisk(
                    f"the disk of {self._root} is full: storing {key} would leave {max(free, 0)} bytes, at least "
                    f"{self._min_free_bytes} must stay free; free some, or put the directory on a larger disk"
                )
        _write_all(file, chunk)

    def _publish(self, key: str, file: BinaryIO, upload: Path, manifest: Manifest) -> None:
        encoded = msgspec.msgpack.encode(manifest)
        _write_all(file, encoded + _TRAILER.pack(len(encoded), _MAGIC))
        path = self._path(key)
        with self._tree_lock:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            upload.replace(path)

    def _open(self, key: str) -> tuple[BinaryIO, Manifest]:
        try:
            file = self._path(key).open("rb", buffering=0)
        except FileNotFoundError:
            raise NotFound(f"there is no blob {key}: it was never stored, or deleted") from None
        try:
            return file, _read_manifest(key, file)
        except BaseException:
            file.close()
            raise

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
                blobs.append(BlobInfo(key, _size_of(key, path)))
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


@contextmanager
def _out_of_disk(key: str, root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutOfDisk(
                f"the disk of {root} is full: {key} was not stored; free some, or put the directory on a larger disk"
            ) from error
        raise


def _write_all(file: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _discard(file: BinaryIO, upload: Path) -> None:
    """Close, and remove what was not published."""
    file.close()
    upload.unlink(missing_ok=True)


def _read_chunk(file: BinaryIO, offset: int, length: int, checker: RangeChecker) -> bytes:
    chunk = os.pread(file.fileno(), length, offset)
    checker.feed(chunk)
    return chunk


def _read_trailer(key: str, file: BinaryIO) -> tuple[int, int]:
    """(size of the blob, length of its manifest), from a file of which only the end is looked at."""
    size = file.seek(0, os.SEEK_END)
    raw = os.pread(file.fileno(), _TRAILER.size, max(0, size - _TRAILER.size))
    if len(raw) == _TRAILER.size:
        length, magic = _TRAILER.unpack(raw)
        blob_bytes = size - _TRAILER.size - length
        if magic == _MAGIC and blob_bytes >= 0:
            return blob_bytes, length
    raise DataLoss(f"{key} is damaged: its file does not end as it was written")


def _read_manifest(key: str, file: BinaryIO) -> Manifest:
    size_bytes, length = _read_trailer(key, file)
    try:
        manifest = msgspec.msgpack.decode(os.pread(file.fileno(), length, size_bytes), type=Manifest)
    except msgspec.DecodeError as error:
        raise DataLoss(f"{key} is damaged: its checksums cannot be read") from error
    if manifest.size_bytes != size_bytes or len(manifest.sizes) != len(manifest.sums):
        raise DataLoss(
            f"{key} is damaged: it has {size_bytes} bytes and not the {manifest.size_bytes} that were stored"
        )
    return manifest


def _size_of(key: str, path: Path) -> int:
    """The blob's size; what a damaged one occupies, so that it can still be seen and deleted."""
    with path.open("rb", buffering=0) as file:
        try:
            return _read_trailer(key, file)[0]
        except DataLoss:
            return file.seek(0, os.SEEK_END)
