"""What a stored blob ends with: its manifest (msgpack), and a trailer with the manifest's length. Pure.

Blob and checksums so become visible together, in whatever holds them, and one that was cut short is noticed.
"""

from __future__ import annotations

import struct

import msgspec

from shoal_common.blob.checksums import Manifest
from shoal_common.errors import DataLoss

_TRAILER = struct.Struct("<I8s")
_MAGIC = b"shoalblb"
#: The end of a stored blob from which `footer_size` can be told, in bytes.
TRAILER_BYTES = _TRAILER.size


def encode_footer(manifest: Manifest) -> bytes:
    encoded = msgspec.msgpack.encode(manifest)
    return encoded + _TRAILER.pack(len(encoded), _MAGIC)


def footer_size(key: str, end: bytes, stored_bytes: int) -> int:
    """Length of the footer, in bytes, from the last bytes of what is stored, which are ``stored_bytes`` in all.

    Raises: DataLoss when this is no end of a blob.
    """
    if len(end) >= TRAILER_BYTES:
        length, magic = _TRAILER.unpack(end[-TRAILER_BYTES:])
        if magic == _MAGIC and length + TRAILER_BYTES <= stored_bytes:
            return int(length) + TRAILER_BYTES
    raise DataLoss(f"{key} is damaged: it does not end as it was written")


def decode_footer(key: str, footer: bytes, stored_bytes: int) -> Manifest:
    """The manifest of a blob that takes ``stored_bytes``, its footer included. Raises: DataLoss."""
    try:
        manifest = msgspec.msgpack.decode(footer[:-TRAILER_BYTES], type=Manifest)
    except msgspec.DecodeError as error:
        raise DataLoss(f"{key} is damaged: its checksums cannot be read") from error
    size_bytes = stored_bytes - len(footer)
    if manifest.size_bytes != size_bytes or len(manifest.sizes) != len(manifest.sums):
        raise DataLoss(
            f"{key} is damaged: it has {size_bytes} bytes and not the {manifest.size_bytes} that were stored"
        )
    return manifest
