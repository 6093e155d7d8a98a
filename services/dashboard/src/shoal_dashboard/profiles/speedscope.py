"""A profile as speedscope reads it. Pure.

Source: https://www.speedscope.app/file-format-schema.json, the kind "sampled".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

from shoal_dashboard.profiles.stack_counts import StackCount

_FRAME = re.compile(r"(?P<name>.*) \((?P<file>[^()]*?)(?::(?P<line>\d+))?\)")


def document(
    name: str, stacks: Sequence[StackCount], unit: Literal["seconds", "bytes"], weight: float = 1
) -> dict[str, Any]:
    """``weight``: how much of ``unit`` a count is."""
    numbers: dict[str, int] = {}
    samples = [[numbers.setdefault(frame, len(numbers)) for frame in stack.frames] for stack in stacks]
    weights = [stack.count * weight for stack in stacks]
    return {
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "exporter": "shoal",
        "name": name,
        "shared": {"frames": [_frame(frame) for frame in numbers]},
        "profiles": [
            {
                "type": "sampled",
                "name": name,
                "unit": unit,
                "startValue": 0,
                "endValue": sum(weights),
                "samples": samples,
                "weights": weights,
            }
        ],
    }


def _frame(text: str) -> dict[str, Any]:
    parts = _FRAME.fullmatch(text)
    if parts is None:
        return {"name": text}
    frame: dict[str, Any] = {"name": parts["name"], "file": parts["file"]}
    if parts["line"]:
        frame["line"] = int(parts["line"])
    return frame
