"""Which runtime environments are made on this node, for as long as its workers need them. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from shoal_raylet.actions import Action, PrepareEnvironment, ReleaseEnvironment

#: One that no worker has been in for so long is let go of, with its warm template, in seconds.
IDLE_ENVIRONMENT_S = 60.0


@dataclass(slots=True)
class _Environment:
    #: False: it is being made.
    ready: bool = False
    #: Since when no worker is in it; None = some are.
    unused_since: float | None = None


class Environments:
    """By the key of `shoal_common.placement.runtime_env.key`; "" is there always."""

    def __init__(self) -> None:
        self._known: dict[str, _Environment] = {}

    def is_ready(self, key: str) -> bool:
        return not key or (key in self._known and self._known[key].ready)

    def wanted(self, key: str, document: str) -> list[Action]:
        """Somebody waits for a worker in it."""
        known = self._known.get(key)
        if known is None:
            self._known[key] = _Environment()
            return [PrepareEnvironment(key, document)]
        known.unused_since = None
        return []

    def prepared(self, key: str) -> None:
        self._known[key].ready = True

    def failed(self, key: str) -> None:
        """Whoever wants it next tries again."""
        del self._known[key]

    def vanished(self, key: str) -> list[ReleaseEnvironment]:
        """Its files are gone: whoever wants it next has it made again."""
        known = self._known.get(key)
        if known is None or not known.ready:
            return []
        del self._known[key]
        return [ReleaseEnvironment(key)]

    def let_go(self, used: Collection[str], now: float) -> list[ReleaseEnvironment]:
        """``used``: those that workers are in, or that somebody waits for."""
        actions: list[ReleaseEnvironment] = []
        for key, environment in list(self._known.items()):
            if key in used or not environment.ready:
                environment.unused_since = None
            elif environment.unused_since is None:
                environment.unused_since = now
            elif now - environment.unused_since >= IDLE_ENVIRONMENT_S:
                del self._known[key]
                actions.append(ReleaseEnvironment(key))
        return actions

    def next_deadline(self) -> float | None:
        unused = (each.unused_since for each in self._known.values() if each.unused_since is not None)
        return min((since + IDLE_ENVIRONMENT_S for since in unused), default=None)

    def __bool__(self) -> bool:
        """There are some."""
        return bool(self._known)

    def validate(self) -> None:
        """For tests: what is always true of it."""
        assert "" not in self._known, "nobody makes the one that is there always"
        assert all(each.ready or each.unused_since is None for each in self._known.values()), (
            "one in the making is wanted"
        )
