"""``MetadataStore``: keys with revisions, watches and leases.

Keys are ``/shoal/<cluster>/<table>/<id>``, values are opaque bytes. A revision is a number that grows with
every write to the shard of the key, so "the revision I read" names one version of one entry for ever.

Every write touches one key and may compare that key's revision. That is the only transaction there is, on
purpose: keys are spread over shards, and a transaction over two keys would need both on one shard.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

#: A value has this many bytes at most; etcd takes 1.5 MiB a request by default. What is larger is split by its writer.
MAX_VALUE_BYTES = 1024 * 1024


class MetadataStoreError(Exception):
    """The store could not do what was asked; whether a write happened is unknown, so read before you repeat it."""


class RevisionConflict(MetadataStoreError):
    """Somebody else wrote the key since it was read: read it again and decide again."""

    def __init__(self, key: str, expected: int, actual: int) -> None:
        super().__init__(key, expected, actual)
        self.key = key
        #: The revision the writer had read; 0 = it had found no entry.
        self.expected = expected
        #: The revision in the store; 0 = there is no entry.
        self.actual = actual

    def __str__(self) -> str:
        return f"{self.key} is at revision {self.actual}, not {self.expected} as read: read it again before writing"


class LeaseExpired(MetadataStoreError):
    """The lease is gone and so are its keys: grant a new one and write them again."""

    def __init__(self, lease_id: int) -> None:
        super().__init__(lease_id)
        self.lease_id = lease_id

    def __str__(self) -> str:
        return f"lease {self.lease_id} has expired or was revoked: grant a new one and write its keys again"


class WatchLagged(MetadataStoreError):
    """The watcher was too slow or the store lost its place: scan the prefix again and open a new watch."""

    def __init__(self, prefix: str) -> None:
        super().__init__(prefix)
        self.prefix = prefix

    def __str__(self) -> str:
        return f"the watch of {self.prefix} has missed events: scan it again and open a new watch"


class StoreRefused(MetadataStoreError):
    """The store will not serve this process, and a repeat fails too: wrong credentials, or it is another cluster's."""


class Fenced(MetadataStoreError):
    """Another GCS leads the cluster, so nothing that this process asks for is written any more."""

    def __init__(self, epoch: int, reason: str) -> None:
        super().__init__(epoch, reason)
        #: The epoch in which this process has led.
        self.epoch = epoch
        self.reason = reason

    def __str__(self) -> str:
        return f"this process does not lead any more (it did in epoch {self.epoch}): {self.reason}; nothing was written"


@dataclass(frozen=True, slots=True)
class Entry:
    key: str
    value: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class WatchEvent:
    key: str
    #: None = the entry was deleted.
    value: bytes | None
    revision: int


def check_value(key: str, value: bytes) -> None:
    """Raises: ValueError for a value that not every store takes."""
    if len(value) > MAX_VALUE_BYTES:
        raise ValueError(f"the value of {key} has {len(value)} bytes, more than {MAX_VALUE_BYTES}: split it")


class Watch(Protocol):
    """Events of one prefix. Those of one shard, so also those of one key, come in the order of their revisions.

    Iteration ends after ``close()`` and raises ``WatchLagged`` once events were missed.
    """

    def __aiter__(self) -> AsyncIterator[WatchEvent]: ...
    async def __anext__(self) -> WatchEvent: ...
    async def close(self) -> None:
        """Idempotent."""


class MetadataStore(Protocol):
    """All methods raise ``MetadataStoreError`` when the store is unreachable, broken or overloaded.

    A read sees every write whose call has returned. Cancelling a call does not undo its write.
    """

    async def get(self, key: str) -> Entry | None: ...

    async def scan(self, prefix: str) -> list[Entry]:
        """All entries whose key starts with ``prefix``, sorted by key."""

    async def keys(self, prefix: str) -> list[str]:
        """As ``scan``, without the cost of the values."""

    async def put(self, key: str, value: bytes, *, expected_revision: int | None = None, lease_id: int = 0) -> int:
        """Write an entry and return its new revision.

        ``expected_revision``: write only if the entry has this revision; 0 = only if there is none; None = always.
        ``lease_id``: the entry vanishes with this lease; 0 = it stays.

        Raises: RevisionConflict, LeaseExpired, ValueError for more than ``MAX_VALUE_BYTES``.
        """

    async def delete(self, key: str, *, expected_revision: int | None = None) -> bool:
        """Delete an entry; False = there was none. Raises: RevisionConflict."""

    async def watch(self, prefix: str) -> Watch:
        """Every change of the prefix from now on.

        To miss nothing: open the watch, then scan, then skip the events that are not newer than what was scanned.
        """

    async def grant_lease(self, ttl_s: float) -> int:
        """A new lease that ends ``ttl_s`` seconds after its grant or last refresh."""

    async def refresh_lease(self, lease_id: int) -> None:
        """Raises: LeaseExpired."""

    async def revoke_lease(self, lease_id: int) -> None:
        """End a lease and delete its entries; one that is gone already is fine."""

    async def close(self) -> None:
        """Finish what was asked, then release everything. Idempotent."""
