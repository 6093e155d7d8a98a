"""When something that is kept in the blob store was last used: a blob ``<place>/used/<day>``, so that a listing tells.

Raylets write it, on each day on which a package or an installed environment is used, and the GCS deletes what nobody
has used for days. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

DAY_S = 86_400
_USED = "used"


def day(unix_s: float) -> int:
    """Since the epoch; in UTC, so that all machines have the same."""
    return int(unix_s // DAY_S)


def mark(place: str, today: int) -> str:
    """The key that says it. ``place``: two segments, as ``package/<digest>``."""
    return f"{place}/{_USED}/{today}"


@dataclass(frozen=True, slots=True)
class Found:
    """What a listing shows."""

    #: Not used for so long that it may go.
    old: list[str] = field(default_factory=list)
    #: Nobody has said yet when they were used.
    unmarked: list[str] = field(default_factory=list)


def find(keys: Iterable[str], today: int, keep_days: int) -> Found:
    """``keys``: all of some places. What was used ``keep_days`` ago stays."""
    last: dict[str, int] = {}
    for key in keys:
        parts = key.split("/")
        used = int(parts[3]) if len(parts) == 4 and parts[2] == _USED and parts[3].isdigit() else -1
        place = "/".join(parts[:2])
        last[place] = max(used, last.get(place, -1))
    return Found(
        [place for place, used in last.items() if 0 <= used < today - keep_days],
        [place for place, used in last.items() if used < 0],
    )
