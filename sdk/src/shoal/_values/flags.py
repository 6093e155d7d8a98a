"""Flags as users give them: True and False, and nothing that merely counts as one of them."""

from __future__ import annotations

from typing import Any


def flag(value: Any, what: str) -> bool:
    """Raises: TypeError (no bool), which says what ``what`` must be."""
    if value is True or value is False:
        return bool(value)
    raise TypeError(f"{what} must be True or False, not {value!r}")
