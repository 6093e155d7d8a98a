"""Amounts as they are told to humans. Pure."""

from __future__ import annotations


def size(count: int) -> str:
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.4g} {unit}"
        amount /= 1024
    return f"{amount:.4g} TiB"


def counted(count: int, one: str, many: str = "") -> str:
    """``1 task``, ``2,000 tasks``. ``many``: of what has another plural than with an s."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def duration(ms: float) -> str:
    if ms < 1_000:
        return f"{ms:.3g} ms"
    return f"{ms / 1_000:.3g} s" if ms < 120_000 else f"{ms / 60_000:,.1f} min"
