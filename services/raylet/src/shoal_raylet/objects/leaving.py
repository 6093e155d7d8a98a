"""What others may still need of this node's objects when it leaves the cluster. Pure.

Owners and jobs that end with the node need nothing after that.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass

from shoal_raylet.objects.entry import Blob, Entry


@dataclass(frozen=True, slots=True)
class Ending:
    """The processes and the jobs that end with the node."""

    owners: Container[bytes]
    jobs: Container[bytes]


def only_here(entries: Iterable[Entry], ending: Ending) -> list[Entry]:
    """Primary copies without a blob that are needed elsewhere."""
    return [
        entry
        for entry in entries
        if entry.sealed
        and not entry.home
        and entry.blob is None
        and entry.owner not in ending.owners
        and entry.job_id not in ending.jobs
    ]


def shrunk(entries: Iterable[Entry], ending: Ending) -> list[tuple[str, list[Entry]]]:
    """The blobs of which objects have been deleted, or end with this node, and what else is in them; not those of
    jobs that end."""
    blobs: dict[Blob, list[Entry]] = {}
    for entry in entries:
        if entry.blob is not None and entry.job_id not in ending.jobs:
            kept = blobs.setdefault(entry.blob, [])
            if entry.owner not in ending.owners:
                kept.append(entry)
    return [(blob.key, kept) for blob, kept in blobs.items() if len(kept) < blob.written]
