"""Whose bucket it is: an object in it names the cluster, so that no cluster takes, or sweeps, what is another's."""

from __future__ import annotations

import asyncio
import json

import structlog

from shoal_common.blob.s3 import AccessRefused, S3Bucket
from shoal_common.errors import DeadlineExceeded, NotFound, PreconditionFailed, Unavailable

#: No blob's object begins with a dot.
MARKER = ".shoal-cluster.json"
#: Pause between two tries to reach a server, in seconds.
_PAUSE_S = 1.0

_log = structlog.get_logger()


async def claim_when_reached(bucket: S3Bucket, cluster_id: str, timeout_s: float) -> None:
    """`claim`, waiting up to ``timeout_s`` for a server that is not there yet; one log line says so.

    Raises: Unavailable; at once: AccessRefused, InvalidRequest for its name, PreconditionFailed.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    waiting = False
    while True:
        try:
            await asyncio.to_thread(claim, bucket, cluster_id)
            return
        except AccessRefused:
            raise
        except (Unavailable, DeadlineExceeded) as error:
            if loop.time() >= deadline:
                raise Unavailable(f"no blob store within {timeout_s:g} s: {error}. Is s3_endpoint right?") from error
            if not waiting:
                waiting = True
                _log.warning("waiting_for_s3", endpoint=bucket.endpoint, reason=str(error), timeout_s=timeout_s)
        await asyncio.sleep(min(_PAUSE_S, max(0.0, deadline - loop.time())))


def claim(bucket: S3Bucket, cluster_id: str) -> None:
    """Make the bucket this cluster's, if it does not exist yet or is empty.

    Replicas may do this at the same time. Raises: PreconditionFailed when it is not ours, and nothing is touched then.
    """
    if not bucket.exists():
        bucket.make()
    # In this order: a replica that claims it meanwhile makes it non-empty by its marker.
    empty = next(bucket.list(""), None) is None
    owner = _owner(bucket)
    if owner is None and empty:
        try:
            bucket.put(MARKER, [json.dumps({"cluster_id": cluster_id}).encode()], only_new=True)
        except PreconditionFailed:
            pass  # another replica was faster; perhaps not one of ours
        owner = _owner(bucket)
    if owner != cluster_id:
        what = f"belongs to the cluster {owner!r}" if owner else "has objects that no cluster of Shoal has put there"
        raise PreconditionFailed(
            f"the bucket {bucket.name} of {bucket.endpoint} {what}, this is the cluster {cluster_id!r}: "
            "give the cluster a bucket of its own (s3_bucket)"
        )


def _owner(bucket: S3Bucket) -> str | None:
    try:
        answer = bucket.open(MARKER, "0-4095")
        try:
            text = bucket.read(answer, 4096, MARKER)
        finally:
            answer.close()
    except NotFound:
        return None
    try:
        return str(json.loads(text)["cluster_id"])
    except (ValueError, KeyError, TypeError):
        return f"(unreadable: {MARKER})"
