"""Tests that walk at random, by a seed: through the same histories each time, and through others in ``make fuzz``.

The test's name ends with its seed; ``SHOAL_SEEDS=7,8`` has each walk with these seeds only.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pytest

Test = TypeVar("Test", bound=Callable[..., Any])


def walks(count: int) -> Callable[[Test], Test]:
    """The test takes a ``seed``, and runs so many times."""

    def mark(test: Test) -> Test:
        return pytest.mark.walk(pytest.mark.parametrize("seed", _seeds(count))(test))

    return mark


def _seeds(count: int) -> Sequence[int]:
    given = os.environ.get("SHOAL_SEEDS", "")
    if given == "random":
        first = random.SystemRandom().randrange(1 << 32)
        return range(first, first + count)
    return [int(seed) for seed in given.split(",")] if given else range(count)
