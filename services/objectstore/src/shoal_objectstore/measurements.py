"""What Prometheus reads of the objectstore service."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from shoal_common.service.metrics import Family, Sample, sample

STORED = Family("shoal_objectstore_stored_blobs", "counter", "blobs that came through this process")
STORED_BYTES = Family("shoal_objectstore_stored_bytes", "counter", "bytes of them")
READ_BYTES = Family("shoal_objectstore_read_bytes", "counter", "bytes of blobs that went out through this process")
SIGNED = Family("shoal_objectstore_signed", "counter", "URLs signed, with which clients store and read by themselves")
DELETED = Family("shoal_objectstore_deleted_blobs", "counter", "blobs deleted by this process")
FAMILIES = (STORED, STORED_BYTES, READ_BYTES, SIGNED, DELETED)


@dataclass(slots=True)
class Counts:
    """Since the start."""

    stored: int = 0
    stored_bytes: int = 0
    read_bytes: int = 0
    signed: int = 0
    deleted: int = 0

    def samples(self) -> Iterator[Sample]:
        numbers = (self.stored, self.stored_bytes, self.read_bytes, self.signed, self.deleted)
        return (sample(family, number) for family, number in zip(FAMILIES, numbers, strict=True))
