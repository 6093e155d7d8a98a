"""The metadata store: what the cluster must not forget, under one interface for every store behind it."""

from shoal_common.metadata.store import (
    Entry,
    LeaseExpired,
    MetadataStore,
    MetadataStoreError,
    RevisionConflict,
    Watch,
    WatchEvent,
    WatchLagged,
)

__all__ = [
    "Entry",
    "LeaseExpired",
    "MetadataStore",
    "MetadataStoreError",
    "RevisionConflict",
    "Watch",
    "WatchEvent",
    "WatchLagged",
]
