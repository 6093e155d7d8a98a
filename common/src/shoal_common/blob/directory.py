"""``BlobStore`` in a directory, for clusters without an S3 server.

A raylet that has the directory too writes and reads blobs without the objectstore service (`LocalBlobs`), so several
stores of several processes may work on one directory.

Nothing is flushed to the device: a spilled object is worth no more than the processes that may want it, and they die
with the machine.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from shoal_common.blob.checksums import Manifest, ManifestBuilder, RangeChecker
from shoal_common.blob.file import SUFFIX, BlobReader, BlobWriter, appended_path
from shoal_common.blob.store import CHUNK_BYTES, BlobInfo, check_key, check_prefix
from shoal_common.errors import Cancelled, OutOfDisk

#: Where blobs are written before they are complete; no key begins with a dot.
_UPLOADS = ".uploads"
#: How often a blob's directory is made again that others have removed as empty.
_PUBLISH_ATTEMPTS = 100
#: Written and summed up, or read and verified, in one go: it is still in the processor's cache the second time.
_STEP_BYTES = 1024 * 1024


class DirectoryBlobStore:
    """File I/O runs in the event loop's default executor."""

    def __init__(self, root: Path, min_free_bytes: int = 0, name: str = "") -> None:
        """``min_free_bytes``: a put that would leave less on the file system raises OutOfDisk. ``name``: every store
        that works on the directory at the same time has another one."""
        self._root = root
        self._min_free_bytes = min_free_bytes
        self._uploads = root / f"{_UPLOADS}{name}"
        self._upload_numbers = itertools.count()
        shutil.rmtree(self._uploads, ignore_errors=True)  # what a killed predecessor has left

    async def put(self, key: str, chunks: AsyncIterator[bytes], section_sizes: Sequence[int] = ()) -> BlobInfo:
        check_key(key)
        upload = self._new_upload()
        writer = BlobWriter(upload, ManifestBuilder(key, section_sizes))
        try:
            async for chunk in chunks:
                await asyncio.to_thread(self._append, key, writer, chunk)
            manifest = await asyncio.to_thread(self._publish, key, writer, upload)
        except BaseException:
            await asyncio.shield(asyncio.to_thread(writer.discard))
            raise
        return BlobInfo(key, manifest.size_bytes, manifest.checksum)

    async def get(self, key: str, offset: int = 0, length: int = 0) -> AsyncIterator[bytes]:
        check_key(key)
        reader = BlobReader(key, self._root)
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

    def put_sections(self, key: str, sections: Sequence[memoryview], may_go_on: Callable[[], bool]) -> BlobInfo:
        """As ``put``, in the calling thread, which gives up when ``may_go_on`` says no.

        Raises: as ``put``, Cancelled.
        """
        check_key(key)
        upload = self._new_upload()
        writer = BlobWriter(upload, ManifestBuilder(key, [len(section) for section in sections]))
        try:
            for section in sections:
                for at in range(0, len(section), _STEP_BYTES):
                    if not may_go_on():
                        raise Cancelled(f"{key} is not needed any more")
                    with section[at : at + _STEP_BYTES] as step:
                        self._append(key, writer, step)
            manifest = self._publish(key, writer, upload)
        finally:
            writer.discard()
        return BlobInfo(key, manifest.size_bytes, manifest.checksum)

    def read_into(self, key: str, target: memoryview, offset: int, may_go_on: Callable[[], bool]) -> None:
        """As ``get``, in the calling thread: fill ``target``. Raises: as ``get``, Cancelled."""
        check_key(key)
        reader = BlobReader(key, self._root)
        try:
            manifest = reader.manifest()
            manifest.end_of(key, offset, len(target))
            _read_range(key, reader, manifest, target, offset, may_go_on)
        finally:
            reader.close()

    def read(self, key: str, may_go_on: Callable[[], bool]) -> bytes:
        """The whole blob, in the calling thread. Raises: as ``read_into``."""
        check_key(key)
        reader = BlobReader(key, self._root)
        try:
            manifest = reader.manifest()
            whole = bytearray(manifest.size_bytes)
            with memoryview(whole) as target:
                _read_range(key, reader, manifest, target, 0, may_go_on)
            return bytes(whole)
        finally:
            reader.close()

    async def delete(self, keys: Sequence[str] = (), prefix: str = "") -> int:
        for key in keys:
            check_key(key)
        check_prefix(prefix)
        return await asyncio.to_thread(self._delete, keys, prefix)

    async def list(self, prefix: str = "") -> Sequence[BlobInfo]:
        return await asyncio.to_thread(self.list_now, prefix)

    def list_now(self, prefix: str) -> Sequence[BlobInfo]:
        """As ``list``, in the calling thread."""
        check_prefix(prefix)
        blobs = []
        for key, path in self._walk(prefix):
            try:
                blobs.append(BlobInfo(key, path.stat().st_size))
            except FileNotFoundError:  # deleted meanwhile
                continue
        return sorted(blobs, key=lambda blob: blob.key)

    def _path(self, key: str) -> Path:
        return self._root / (key + SUFFIX)

    def _new_upload(self) -> Path:
        return self._uploads / str(next(self._upload_numbers))

    def _append(self, key: str, writer: BlobWriter, chunk: bytes | memoryview) -> None:
        with self._out_of_disk(key):
            self._check_free(key, len(chunk))
            writer.append(chunk)

    def _publish(self, key: str, writer: BlobWriter, upload: Path) -> Manifest:
        """Closes the writer."""
        path = self._path(key)
        with self._out_of_disk(key):
            manifest = writer.finish()
            # Others delete blobs meanwhile, and then the directories that are empty.
            for attempt in range(_PUBLISH_ATTEMPTS):
                try:
                    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                    upload.replace(path)
                    break
                except (FileNotFoundError, FileExistsError):
                    # FileExistsError: it was there when mkdir tried, and gone when mkdir looked at what it is.
                    if attempt == _PUBLISH_ATTEMPTS - 1:
                        raise
        writer.discard()
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
            for path in (self._path(key), appended_path(self._root, key)):
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
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                    return
                raise
            directory = directory.parent

    def _walk(self, prefix: str) -> Iterator[tuple[str, Path]]:
        """Key and file of every blob whose key begins with ``prefix``."""
        top = self._root / prefix.rpartition("/")[0]
        for directory, subdirectories, names in os.walk(top):
            if directory == str(self._root):
                subdirectories[:] = [name for name in subdirectories if not name.startswith(_UPLOADS)]
            for name in names:
                path = Path(directory, name)
                key = path.relative_to(self._root).as_posix().partition(SUFFIX)[0]
                if key.startswith(prefix):
                    yield key, path


def _read_range(
    key: str, reader: BlobReader, manifest: Manifest, target: memoryview, offset: int, may_go_on: Callable[[], bool]
) -> None:
    checker = RangeChecker(key, manifest.parts(offset, len(target)))
    filled = 0
    while filled < len(target):
        if not may_go_on():
            raise Cancelled(f"{key} is not needed any more")
        with target[filled : filled + _STEP_BYTES] as step:
            filled += reader.read_into(step, offset + filled, checker)
