"""The metadata store: what the cluster must not forget, under one interface for every store behind it."""

from shoal_common.metadata.store import (
    MAX_VALUE_BYTES,
    Entry,
    Fenced,
    LeaseExpired,
    MetadataStore,
    MetadataStoreError,
    RevisionConflict,
    StoreRefused,
    Watch,
    WatchEvent,
    WatchLagged,
)

__all__ = [
    "MAX_VALUE_BYTES",
    "Entry",
    "Fenced",
    "LeaseExpired",
    "MetadataStore",
    "MetadataStoreError",
    "RevisionConflict",
    "StoreRefused",
    "Watch",
    "WatchEvent",
    "WatchLagged",
]
