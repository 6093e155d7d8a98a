"""When a task that was killed for the node's memory runs again. Pure.

What filled the memory together does so again when all of it starts again at once. So each time a task waits longer for
the others to end, by a time of its own. As long as others were to blame too, it uses up no retry: the oldest of them
is never the one that is killed, so they get through one after the other. What fills the memory alone will do it again.
"""

from __future__ import annotations

from shoal._core.task_record import TaskRecord

#: Bounds of the pause, which doubles, in seconds.
FIRST_PAUSE_S = 1.0
LAST_PAUSE_S = 60.0
#: Runs that cost no retry, which take about a quarter of an hour in all; what holds the memory then keeps it.
FREE_RETRIES = 20


def pause_before_retry(record: TaskRecord, shared_blame: bool, jitter: float) -> float | None:
    """In seconds; None: it is not to run again. Counts the attempt, and the retry if it costs one.

    ``shared_blame``: other workers had grown as well. ``jitter``: from 0 to 1, at random.
    """
    pause_s = min(FIRST_PAUSE_S * 2.0**record.memory_kills, LAST_PAUSE_S) * (0.5 + 0.5 * jitter)
    record.memory_kills += 1
    if shared_blame and record.retries_left and record.memory_kills <= FREE_RETRIES:
        record.push.attempt += 1
        return pause_s
    return pause_s if record.retry() else None
