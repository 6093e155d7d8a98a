"""Subjects and how patterns match them; the rules are those of NATS.

A subject is ``shoal.<cluster>.<kind>.<id>…``; ids are written in hexadecimal.
"""

from __future__ import annotations

from collections.abc import Callable


def heartbeat(cluster: str, node_id: bytes) -> str:
    """Carries ``Heartbeat``."""
    return f"shoal.{cluster}.heartbeat.{node_id.hex()}"


def node(cluster: str, node_id: bytes) -> str:
    """Carries ``NodeEvent``."""
    return f"shoal.{cluster}.node.{node_id.hex()}"


def actor(cluster: str, actor_id: bytes) -> str:
    """Carries ``ActorEvent``."""
    return f"shoal.{cluster}.actor.{actor_id.hex()}"


def job(cluster: str, job_id: bytes) -> str:
    """Carries ``JobEvent``."""
    return f"shoal.{cluster}.job.{job_id.hex()}"


def group(cluster: str, group_id: bytes) -> str:
    """Carries ``PlacementGroupEvent``."""
    return f"shoal.{cluster}.group.{group_id.hex()}"


def submission(cluster: str, row_id: str) -> str:
    """Carries ``SubmissionInfo``; ``row_id`` is the submission's id as UTF-8, in hexadecimal."""
    return f"shoal.{cluster}.submission.{row_id}"


def log(cluster: str, job_id: bytes, node_id: bytes, worker_id: bytes) -> str:
    """Carries ``LogBatch``."""
    return f"shoal.{cluster}.log.{job_id.hex()}.{node_id.hex()}.{worker_id.hex()}"


def garbage(cluster: str, node_id: bytes) -> str:
    """Carries nothing: something waits on this node for what only actors hold, so that garbage is to be collected."""
    return f"shoal.{cluster}.garbage.{node_id.hex()}"


def events(cluster: str, node_id: bytes) -> str:
    """Carries ``node_events.NodeReport``, while somebody listens."""
    return f"shoal.{cluster}.events.{node_id.hex()}"


def happened(cluster: str, node_id: bytes) -> str:
    """Carries ``node_events.ClusterEvent``: rare ones, told whoever listens; reports have them, too."""
    return f"shoal.{cluster}.happened.{node_id.hex()}"


def load(cluster: str, node_id: bytes) -> str:
    """Carries ``node_events.NodeLoad``, while somebody listens."""
    return f"shoal.{cluster}.load.{node_id.hex()}"


def listening(cluster: str) -> str:
    """Carries ``node_events.Listening``: somebody wants what is published on ``events`` and ``load``."""
    return f"shoal.{cluster}.listening"


def all_events(cluster: str) -> str:
    return f"shoal.{cluster}.events.*"


def all_happened(cluster: str) -> str:
    return f"shoal.{cluster}.happened.*"


def all_loads(cluster: str) -> str:
    return f"shoal.{cluster}.load.*"


def all_heartbeats(cluster: str) -> str:
    return f"shoal.{cluster}.heartbeat.*"


def all_nodes(cluster: str) -> str:
    return f"shoal.{cluster}.node.*"


def all_actors(cluster: str) -> str:
    return f"shoal.{cluster}.actor.*"


def all_jobs(cluster: str) -> str:
    return f"shoal.{cluster}.job.*"


def all_groups(cluster: str) -> str:
    return f"shoal.{cluster}.group.*"


def all_submissions(cluster: str) -> str:
    return f"shoal.{cluster}.submission.*"


def all_garbage(cluster: str) -> str:
    return f"shoal.{cluster}.garbage.*"


def logs_of_job(cluster: str, job_id: bytes) -> str:
    return f"shoal.{cluster}.log.{job_id.hex()}.>"


def check_subject(subject: str) -> None:
    """Raises: ValueError when an event cannot have this subject."""
    tokens = subject.split(".")
    if not all(tokens) or "*" in tokens or ">" in tokens:
        raise ValueError(f"{subject!r} is not a subject: it needs non-empty tokens without wildcards between the dots")


def matcher(pattern: str) -> Callable[[str], bool]:
    """A predicate on subjects. Raises: ValueError when the pattern is malformed."""
    tokens = pattern.split(".")
    if not all(tokens) or ">" in tokens[:-1]:
        raise ValueError(f"{pattern!r} is not a pattern: tokens must not be empty and '>' may only be the last one")
    if "*" not in tokens and ">" not in tokens:
        return pattern.__eq__
    rest = tokens[-1] == ">"
    wanted = tokens[:-1] if rest else tokens

    def matches(subject: str) -> bool:
        given = subject.split(".")
        if len(given) <= len(wanted) if rest else len(given) != len(wanted):
            return False
        return all(want in ("*", have) for want, have in zip(wanted, given, strict=False))

    return matches
