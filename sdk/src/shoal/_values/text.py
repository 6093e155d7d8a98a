"""Text that users give and that travels in messages, which hold valid Unicode only."""

from __future__ import annotations

from typing import Any


def require_unicode(what: str, value: Any) -> None:
    """Raises: UnicodeEncodeError where a text in ``value``, or in its lists and mappings, cannot be encoded, as the
    name of a file that is not UTF-8."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            reason = f"{error.reason}: {what} must be valid Unicode"
            raise UnicodeEncodeError(error.encoding, error.object, error.start, error.end, reason) from None
    elif isinstance(value, dict):
        for key, each in value.items():
            require_unicode(what, key)
            require_unicode(what, each)
    elif isinstance(value, list | tuple):
        for each in value:
            require_unicode(what, each)
