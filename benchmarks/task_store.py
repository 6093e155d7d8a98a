"""What the dashboard's task store takes in and how fast it answers, alone in a process.

    python benchmarks/task_store.py [ATTEMPTS]

Tells it of so many attempts (1,000,000) as nodes do, each as running and as ended, one in a hundred failed. Prints
events a second of processor time, the median time of each question, the size of the file and the process's memory.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median

from shoal_common.events.node_events import NodeReport, ProcessEvents, ProcessInfo
from shoal_common.events.task_events import Failure, TaskEvent, TaskKind, TaskState, encode_events
from shoal_dashboard.events.duck_store import DuckTaskStore
from shoal_dashboard.events.rows import Filter, Sort

PER_REPORT = 2_000
#: Reports that the receiver hands over together.
AT_ONCE = 5
FUNCTIONS, WORKERS, NODES = 50, 64, 8
BEGAN_MS = 1_700_000_000_000


def attempt(number: int) -> list[TaskEvent]:
    task_id = b"\0\0\0\1" + number.to_bytes(16, "big")
    worker, began = (number % WORKERS).to_bytes(16, "big"), BEGAN_MS + number
    function, parent = f"function_{number % FUNCTIONS}", b"\0\0\0\1" + (number // 100).to_bytes(16, "big")
    running = TaskEvent(task_id, 0, TaskState.RUNNING, began + 5, TaskKind.NORMAL_TASK, function, "", parent)
    running.worker_id, running.submitted_ms, running.started_ms = worker, began, began + 5
    ended = TaskEvent(task_id, 0, TaskState.FINISHED, began + 5 + number % 1_000, TaskKind.NORMAL_TASK, function)
    ended.worker_id = worker
    if number % 100 == 0:
        ended.state = TaskState.FAILED
        ended.failure = Failure("TASK_EXECUTION_EXCEPTION", "ValueError", f"no {number % 7}\nin line {number}")
    return [running, ended]


def report(number: int, first: int) -> NodeReport:
    events = [event for each in range(first, first + PER_REPORT // 2) for event in attempt(each)]
    node_id = (number % NODES).to_bytes(16, "big")
    made = NodeReport(node_id, 1, number // NODES + 1, 1, 0)
    made.events = [ProcessEvents(b"driver", encode_events(events))]
    if number == 0:
        made.workers = [ProcessInfo(each.to_bytes(16, "big"), 1_000 + each, b"", b"", 0) for each in range(WORKERS)]
    return made


async def main(attempts: int) -> None:
    with tempfile.TemporaryDirectory(prefix="task-store-", dir="/tmp") as directory:
        path = Path(directory) / "tasks.duckdb"
        store = DuckTaskStore(path)
        spent = 0.0
        numbers = range(2 * attempts // PER_REPORT)
        for first in range(0, len(numbers), AT_ONCE):
            reports = [report(number, number * PER_REPORT // 2) for number in numbers[first : first + AT_ONCE]]
            began = time.process_time()
            await store.take(reports)
            spent += time.process_time() - began
        print(f"{2 * attempts:,} events: {2 * attempts / spent:,.0f} a second of one core")
        failed, mine = Filter("state", "=", "FAILED"), Filter("func_or_class_name", "=", "function_7")
        page = await store.query([mine], limit=100)
        some = page.rows[50].task_id
        questions: dict[str, Callable[[], Awaitable[object]]] = {
            "newest 100": lambda: store.query(),
            "failed, newest 100": lambda: store.query([failed]),
            "one function, the next page": lambda: store.query([mine], cursor=page.next_cursor),
            "one function, latest end first": lambda: store.query([mine], Sort("end_time_ms")),
            "text in the error": lambda: store.query([Filter("error_message", "contains", "LINE 4")]),
            "all by name": lambda: store.query((), Sort("name")),
            "one task": lambda: store.get(some),
            "errors by what went wrong": lambda: store.errors(),
            "lineage": lambda: store.summary("lineage"),
            "timeline, 20,000 marks": lambda: store.timeline(),
        }
        for title, ask in questions.items():
            times = []
            for _ in range(5):
                began = time.perf_counter()
                await ask()
                times.append(time.perf_counter() - began)
            print(f"{title:32s} {median(times) * 1_000:7.1f} ms")
        await store.close()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"file {path.stat().st_size / 1e6:.0f} MB, memory {memory:.0f} MB")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))
