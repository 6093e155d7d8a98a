"""What the object store tells a process that asked in vain, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass

from shoal_common.channel.frames import StoreError
from shoal_common.kinds import StoreErrorKind


@dataclass(frozen=True, slots=True)
class StoreUse:
    """Of the arena, in bytes. ``pinned``: by values that processes hold or write right now."""

    capacity: int
    used: int
    pinned: int


def lost() -> StoreError:
    return StoreError(StoreErrorKind.OBJECT_LOST, "It is not in this node's store: it was freed, or never sealed.")


def not_ahead() -> StoreError:
    return StoreError(StoreErrorKind.STORE_FULL, "There is no room to be had ahead of need.")


def lost_with_home(home: bytes, reason: str) -> StoreError:
    """``reason``: what its home has done."""
    return StoreError(
        StoreErrorKind.OBJECT_LOST,
        f"Its home, node {home.hex()}, {reason}; it was not spilled, and no other node has a copy. Compute it again.",
    )


def spilled_copy_lost(error: Exception) -> StoreError:
    return StoreError(StoreErrorKind.OBJECT_LOST, f"Its spilled copy is lost: {error}. Compute it again.")


def get_timed_out(problem: str) -> StoreError:
    """``problem``: what keeps it away, if that is known."""
    return StoreError(
        StoreErrorKind.GET_TIMED_OUT,
        f"It is ready, and not in this node's memory yet{f': {problem}' if problem else ''}.",
    )


def fetch_timed_out(after_s: float, problem: str) -> StoreError:
    return StoreError(
        StoreErrorKind.FETCH_TIMED_OUT,
        f"It has not come any further for {after_s:g} s: {problem}. "
        "Look at the network between the nodes, or ask again.",
    )


def file_unusable(object_id: bytes, error: Exception) -> StoreError:
    """The file that it was given because there was no room in the arena."""
    return StoreError(StoreErrorKind.STORE_FULL, f"the file for object {object_id.hex()} cannot be used: {error}")


def spilled_copy_away(error: Exception) -> StoreError:
    return StoreError(StoreErrorKind.FETCH_TIMED_OUT, f"Its spilled copy cannot be read now: {error}. Ask again.")


def no_room(size: int, use: StoreUse, spill_error: str, file_error: str, disk_full: bool) -> StoreError:
    """``file_error``: why it was given no file of its own; ``spill_error``: why others are not spilled, or ""."""
    state = (
        f"no room for an object of {_amount(size)}: {_amount(use.used)} of the {_amount(use.capacity)} of this node's "
        f"object store are used, {_amount(use.pinned)} of them by values that processes hold or write right now"
    )
    if spill_error:
        state += f"; the others cannot be spilled: {spill_error}"
    state += f"; and it cannot be given a file of its own: {file_error}"
    if disk_full:
        return StoreError(
            StoreErrorKind.OUT_OF_DISK,
            f"{state}. Free disk space, choose another disk with object_spilling_directory, or delete "
            "references and arrays that are not needed",
        )
    return StoreError(
        StoreErrorKind.STORE_FULL,
        f"{state}. Delete references and arrays that are not needed, or start with a larger object_store_memory",
    )


def not_writable(object_id: bytes) -> StoreError:
    return StoreError(StoreErrorKind.STORE_FULL, f"object {object_id.hex()} cannot be written (any more)")


def not_readable(object_id: bytes) -> StoreError:
    return StoreError(StoreErrorKind.OBJECT_LOST, f"object {object_id.hex()} cannot be read (any more)")


def file_unreadable(object_id: bytes, error: Exception) -> StoreError:
    return StoreError(StoreErrorKind.OBJECT_LOST, f"the file of object {object_id.hex()} cannot be read: {error}")


def out_of_disk(directory: str, free: int) -> str:
    return f"the disk of {directory} has {_amount(free)} left"


def _amount(size: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} bytes"
