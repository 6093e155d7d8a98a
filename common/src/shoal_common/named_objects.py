"""Where the values of named objects are: blobs below ``named/<job>/<random>/``, parts by number from 0.

Each value has a place of its own, named after the job whose process has stored it, so what was stored and never named
is found when that job has ended.
"""

from __future__ import annotations

import re
import secrets

#: Of a part; the last may be shorter.
PART_BYTES = 8 * 1024 * 1024
#: Below which all places are.
ROOT = "named/"

_PLACE = re.compile(r"[0-9a-f]{8}/[0-9a-f]{32}")


def new_place(job_id: bytes) -> str:
    return f"{job_id.hex()}/{secrets.token_hex(16)}"


def is_place(text: str) -> bool:
    return _PLACE.fullmatch(text) is not None


def prefix_of(place: str) -> str:
    """Of the keys of its blobs."""
    return f"{ROOT}{place}/"


def part_key(place: str, part: int) -> str:
    return f"{prefix_of(place)}{part}"


def parts_of(size_bytes: int) -> int:
    """How many there are; one at least."""
    return max(1, -(-size_bytes // PART_BYTES))


def place_of_key(key: str) -> str:
    """Of one of its blobs."""
    return key.removeprefix(ROOT).rpartition("/")[0]


def job_of_place(place: str) -> bytes:
    """Whose process has stored it; empty = it is no place."""
    return bytes.fromhex(place.partition("/")[0]) if is_place(place) else b""
