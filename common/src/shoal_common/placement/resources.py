"""Amounts of logical resources, in exact fixed-point arithmetic.

One unit is 10,000 grains, Ray's granularity: 0.1 CPU ten times is exactly one CPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Self

GRAINS = 10_000
#: Fits the 64-bit integers of all messages, sums included.
MAX_GRAINS = 1 << 60
#: The resource of every node that tells how many bytes its object store has, and how many are free.
OBJECT_STORE_MEMORY = "object_store_memory"


class ResourceSet:
    """An immutable set of named amounts (in grains); a name that is absent counts as zero."""

    __slots__ = ("_grains",)

    def __init__(self, grains: Mapping[str, int] | None = None) -> None:
        self._grains: dict[str, int] = {name: n for name, n in (grains or {}).items() if n}

    @classmethod
    def of(cls, amounts: Mapping[str, float]) -> Self:
        """From units, e.g. ``{"CPU": 0.5}``; amounts are rounded to the nearest grain, and end at what no node has."""
        return cls({name: min(round(value * GRAINS), MAX_GRAINS) for name, value in amounts.items()})

    @classmethod
    def sum(cls, sets: Iterable[ResourceSet]) -> Self:
        """In time linear in all their names; one ``+`` after the other copies what there is by then each time."""
        total: dict[str, int] = {}
        for each in sets:
            for name, n in each._grains.items():
                total[name] = total.get(name, 0) + n
        return cls(total)

    @property
    def grains(self) -> Mapping[str, int]:
        return self._grains

    def to_units(self) -> dict[str, float]:
        return {name: n / GRAINS for name, n in self._grains.items()}

    def fits_in(self, other: ResourceSet) -> bool:
        theirs = other._grains
        for name, n in self._grains.items():  # noqa: SIM110 - all() takes four times as long, and this is asked a lot
            if n > theirs.get(name, 0):
                return False
        return True

    def missing_from(self, other: ResourceSet) -> dict[str, float]:
        """What ``other`` lacks to hold this, in units; empty when it fits."""
        theirs = other._grains
        return {name: (n - theirs.get(name, 0)) / GRAINS for name, n in self._grains.items() if n > theirs.get(name, 0)}

    def __add__(self, other: ResourceSet) -> ResourceSet:
        total = dict(self._grains)
        for name, n in other._grains.items():
            total[name] = total.get(name, 0) + n
        return ResourceSet(total)

    def __sub__(self, other: ResourceSet) -> ResourceSet:
        """May go negative: a worker that wakes from ``get`` takes its CPU back without waiting for it."""
        total = dict(self._grains)
        for name, n in other._grains.items():
            total[name] = total.get(name, 0) - n
        return ResourceSet(total)

    def __getitem__(self, name: str) -> int:
        return self._grains.get(name, 0)

    def __iter__(self) -> Iterator[str]:
        return iter(self._grains)

    def __bool__(self) -> bool:
        return bool(self._grains)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ResourceSet) and self._grains == other._grains

    def __hash__(self) -> int:
        return hash(frozenset(self._grains.items()))

    def __repr__(self) -> str:
        return f"ResourceSet.of({self.to_units()})"
