"""Whether and when a task or call that has begun and has no value runs again. Pure.

The first retry comes at once: most failures pass with the process that failed, and recovery is to be quick. What fails
again waits longer each time, by a time of its own, so that a fault that lasts (a service that the task needs is away, a
task that kills each worker) costs little, and those that failed together do not all come back together.

What filled the node's memory together does so again when all of it starts again at once, so there the first retry waits
too. As long as others were to blame as well it uses up no retry: the oldest of them is never the one that is killed, so
they get through one after the other. What fills the memory alone will do it again.
"""

from __future__ import annotations

from shoal._core.task_record import TaskRecord

#: Bounds of the pause from the second retry on, which doubles, in seconds.
FIRST_PAUSE_S = 0.1
LAST_PAUSE_S = 10.0
#: The same after a kill for the node's memory, from the first retry on.
FIRST_MEMORY_PAUSE_S = 1.0
LAST_MEMORY_PAUSE_S = 60.0
#: Runs that cost no retry, which take about a quarter of an hour in all; what holds the memory then keeps it.
FREE_RETRIES = 20


def pause_before_retry(record: TaskRecord, jitter: float) -> float | None:
    """After the end of its worker or an exception, in seconds; None: it is not to run again. Counts attempt and retry.

    ``jitter``: from 0 to 1, at random.
    """
    if not record.retry():
        return None
    record.failures += 1
    if record.failures == 1:
        return 0.0
    return _pause(FIRST_PAUSE_S, LAST_PAUSE_S, record.failures - 2, jitter)


def pause_before_memory_retry(record: TaskRecord, shared_blame: bool, jitter: float) -> float | None:
    """As ``pause_before_retry``, of a task that was killed for the node's memory; the retry is counted if it costs one.

    ``shared_blame``: other workers had grown as well.
    """
    record.failures += 1
    if shared_blame and record.retries_left and record.failures <= FREE_RETRIES:
        record.push.attempt += 1
    elif not record.retry():
        return None
    return _pause(FIRST_MEMORY_PAUSE_S, LAST_MEMORY_PAUSE_S, record.failures - 1, jitter)


def _pause(first_s: float, last_s: float, doublings: int, jitter: float) -> float:
    # Bounded, as a task may be retried for ever and a float may not.
    return min(first_s * 2.0 ** min(doublings, 16), last_s) * (0.5 + 0.5 * jitter)
