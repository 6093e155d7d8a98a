"""How this node stands with its cluster: by what the GCS lists of it, and for how long no GCS says anything. Pure.

A node that the cluster has declared dead, say because it was cut off, is fenced: its tasks run elsewhere and its actors
have other incarnations, so it ends what it has and may join anew. One that the GCS does not know is in no cluster: the
head was replaced, or has lost its data. Its raylet ends with an error, as it does when there is no GCS for long: what
it was told of the cluster at its start need not be true of the next one, and whoever supervises it starts it anew.
"""

from __future__ import annotations

from dataclasses import dataclass

from shoal_common.states import NodeState


@dataclass(frozen=True, slots=True)
class OwnRow:
    """What the GCS has of this node's id."""

    state: NodeState
    incarnation: int
    death_reason: str


@dataclass(frozen=True, slots=True)
class GivenUp:
    """This raylet is in no cluster any more; ``reason`` says why."""

    reason: str
    #: The cluster is there and waits for nothing but a new incarnation.
    may_rejoin: bool


class Standing:
    """Of one incarnation, from when it was registered."""

    def __init__(self, incarnation: int, rejoin_timeout_s: float, gcs_address: str, now: float) -> None:
        """``rejoin_timeout_s``: without any GCS until the node is given up; -1 = never. ``gcs_address`` is for the
        messages."""
        self._incarnation = incarnation
        self._rejoin_timeout_s = rejoin_timeout_s
        self._gcs_address = gcs_address
        #: When a GCS last answered.
        self._answered_at = now

    def told(self, row: OwnRow) -> GivenUp | None:
        """An event of this node, or its row in the list; of an earlier incarnation it says nothing."""
        if row.incarnation < self._incarnation:
            return None
        if row.incarnation > self._incarnation:
            return GivenUp("another raylet with this node's id has joined the cluster", may_rejoin=False)
        if row.state is NodeState.DEAD:
            return GivenUp(f"the cluster has declared this node dead: {row.death_reason}", may_rejoin=True)
        return None

    def listed(self, row: OwnRow | None, now: float) -> GivenUp | None:
        """The GCS has answered; None = this node is not in its list."""
        self._answered_at = now
        if row is not None:
            return self.told(row)
        return GivenUp(
            f"the GCS at {self._gcs_address} does not know this node: it is another cluster's, or has lost its data. "
            "Start this raylet again, so that it joins what is there now",
            may_rejoin=False,
        )

    def unchanged(self, now: float) -> None:
        """The GCS has answered that its list is still the one that was read."""
        self._answered_at = now

    def unanswered(self, problem: str, now: float) -> GivenUp | None:
        """No GCS has answered just now."""
        away_s = now - self._answered_at
        if self._rejoin_timeout_s < 0 or away_s < self._rejoin_timeout_s:
            return None
        return GivenUp(
            f"no GCS at {self._gcs_address} has answered for {away_s:.0f} s (rejoin_timeout_s = "
            f"{self._rejoin_timeout_s:g}): {problem}. Start this raylet again when there is one",
            may_rejoin=False,
        )
