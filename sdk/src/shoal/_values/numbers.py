"""Numbers as users give them: Python's own, and those of numpy and the like, which come out of arrays all the time."""

from __future__ import annotations

import numbers
from typing import Any

#: So long anything may be kept: a hundred years, which messages and calendars hold.
MAX_KEPT_S = 100 * 365 * 86_400


def plain(value: Any) -> Any:
    """The int or float that a number of any library is; whatever is no number comes back as it is."""
    kind = type(value)
    if kind is int or kind is float or kind is bool or value is None:
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    return value


def seconds(value: Any, what: str = "timeout", unit: str = "seconds") -> float:
    """``value`` as a plain number. Raises: TypeError (no number), ValueError (NaN), which say what ``what`` must be."""
    number = plain(value)
    if not isinstance(number, int | float):
        raise TypeError(f"{what} must be a number of {unit} or None, not {type(value).__name__}")
    if number != number:
        raise ValueError(f"{what} must be a number of {unit} or None, not NaN")
    return number


def plain_amounts(amounts: Any) -> Any:
    """A dictionary with its values' numbers plain; whatever is no dictionary comes back as it is."""
    return {name: plain(amount) for name, amount in amounts.items()} if isinstance(amounts, dict) else amounts
