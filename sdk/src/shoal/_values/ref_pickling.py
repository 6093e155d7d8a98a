"""References inside pickles: what is written, and what it becomes where it is read.

A pickled reference is the object's id and its owner's address, the latter as one ``bytes`` object however many
references to objects of that owner a pickle holds: so pickle writes it once, and it is decoded once.
"""

from __future__ import annotations

import copyreg
import functools
import threading
from typing import Any

import msgspec

from shoal._core import object_ref
from shoal._core.object_ref import ObjectRef
from shoal_common.channel.frames import WorkerAddress


class _Collected(threading.local):
    """References met while this thread pickles or unpickles; None outside of a serialization of ours."""

    pickled: list[ObjectRef[Any]] | None = None
    unpickled: list[ObjectRef[Any]] | None = None


collected = _Collected()

_encode_address = msgspec.msgpack.Encoder().encode
_decode_address = msgspec.msgpack.Decoder(WorkerAddress).decode


@functools.lru_cache(maxsize=4096)
def address_key(address: WorkerAddress) -> bytes:
    """A peer's address as it stands in pickled references."""
    return _encode_address(address)


@functools.lru_cache(maxsize=4096)
def address_of_key(key: bytes) -> WorkerAddress:
    return _decode_address(key)


def reduce(ref: ObjectRef[Any]) -> tuple[Any, ...]:
    """As ``__reduce__``; the reference is noted, so that whoever sends the pickle counts it.

    Raises: EarlierSessionError.
    """
    ref._check_session()
    holder = object_ref.holder()
    if collected.pickled is not None:
        collected.pickled.append(ref)
    else:
        holder.pin_for_ever([ref])
    entry = ref._entry
    return restore, (entry.object_id, holder.address_key if entry.owner is None else address_key(entry.owner))


def restore(object_id: bytes, owner: bytes) -> ObjectRef[Any]:
    """The reference again; noted, so that its owner is told of the new borrower."""
    return object_ref.holder().restore_ref(object_id, owner)


copyreg.pickle(ObjectRef, reduce)
