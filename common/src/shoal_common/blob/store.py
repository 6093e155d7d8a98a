"""``BlobStore``: put, ranged get, delete, list; one contract suite for all implementations."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from shoal_common.errors import InvalidRequest

#: Blobs travel in chunks of at most this many bytes.
CHUNK_BYTES = 4 * 1024 * 1024
MAX_KEY_LENGTH = 512

# A segment does not begin with a dot: "." and ".." would leave the store's directory, and stores keep their own
# files under such names.
_SEGMENT = r"[A-Za-z0-9_-][A-Za-z0-9._-]*"
_KEY = re.compile(rf"{_SEGMENT}(/{_SEGMENT})*")
_PREFIX = re.compile(rf"({_SEGMENT}/)*({_SEGMENT})?")


@dataclass(frozen=True, slots=True)
class BlobInfo:
    key: str
    #: Of the blob; in a listing the bytes that it takes in the store, a few more for its checksums.
    size_bytes: int
    #: Of the whole blob, "crc32:<hex>"; empty where a listing does not tell.
    checksum: str = ""


class BlobStore(Protocol):
    """Keys are ``/``-separated segments of letters, digits, ``.``, ``_`` and ``-`` (see `check_key`).

    All methods raise: InvalidRequest for an impossible key, prefix or range; Unavailable when the storage
    behind it does not answer.
    """

    async def put(self, key: str, chunks: AsyncIterator[bytes], section_sizes: Sequence[int] = ()) -> BlobInfo:
        """Store a blob, replacing one of the same key. It is visible when this returns, and not before.

        ``section_sizes`` are the lengths of the objects fused in it, in bytes, each checksummed by itself; none
        means that the blob is one section.

        Raises: InvalidRequest when the sections do not add up to the blob, OutOfDisk; nothing is left of it then.
        """

    def get(self, key: str, offset: int = 0, length: int = 0) -> AsyncIterator[bytes]:
        """Stream ``length`` bytes from ``offset``; ``length`` 0 means to the end.

        Every section that lies wholly in the range is checked as its last byte passes: whoever acts on bytes before the
        stream has ended acts on unchecked ones.

        Raises: NotFound, DataLoss, InvalidRequest when the range goes beyond the blob.
        """

    async def delete(self, keys: Sequence[str] = (), prefix: str = "") -> int:
        """Delete these keys, and everything that begins with ``prefix`` unless it is empty. Idempotent.

        Returns how many there were.
        """

    async def list(self, prefix: str = "") -> Sequence[BlobInfo]:
        """All blobs whose key begins with ``prefix``, sorted by key."""


def check_key(key: str) -> None:
    """Raises: InvalidRequest when no blob can have this key."""
    if len(key) > MAX_KEY_LENGTH or not _KEY.fullmatch(key):
        raise InvalidRequest(
            f"{key[:100]!r} is not a blob key: it needs segments of letters, digits, '.', '_' and '-' that do not "
            f"begin with a dot, separated by '/', {MAX_KEY_LENGTH} characters in all"
        )


def check_prefix(prefix: str) -> None:
    """Raises: InvalidRequest when no key can begin with this; the empty prefix is one of all keys."""
    if len(prefix) > MAX_KEY_LENGTH or not _PREFIX.fullmatch(prefix):
        raise InvalidRequest(f"{prefix[:100]!r} is not the beginning of any blob key: see the rules for keys")
