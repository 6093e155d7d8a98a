"""Text that users give and that travels in messages, which hold valid Unicode only, and in logs and errors."""

from __future__ import annotations

from typing import Any

#: Of names and the like. gRPC's errors, which quote them, go along as headers of at most 16 KiB.
MAX_TEXT_BYTES = 4096


def check_text(what: str, value: Any) -> None:
    """Raises: UnicodeEncodeError where a text in ``value``, or in its lists and mappings, cannot be encoded, as the
    name of a file that is not UTF-8; ValueError where it is too long."""
    if isinstance(value, str):
        try:
            size = len(value.encode())
        except UnicodeEncodeError as error:
            reason = f"{error.reason}: {what} must be valid Unicode"
            raise UnicodeEncodeError(error.encoding, error.object, error.start, error.end, reason) from None
        if size > MAX_TEXT_BYTES:
            raise ValueError(
                f"{what} must have at most {MAX_TEXT_BYTES} bytes, and has {size}: it begins with {value[:40]!r}"
            )
    elif isinstance(value, dict):
        for key, each in value.items():
            check_text(what, key)
            check_text(what, each)
    elif isinstance(value, list | tuple):
        for each in value:
            check_text(what, each)
