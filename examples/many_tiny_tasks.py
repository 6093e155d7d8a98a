"""100,000 tasks that do almost nothing: what is left is the cost of a task."""

from __future__ import annotations

import time

import shoal as ray

TASKS = 100_000


@ray.remote
def double(x: int) -> int:
    return 2 * x


def main() -> None:
    ray.init()
    ray.get(double.remote(0))  # the first call also starts a worker
    start = time.perf_counter()
    total = sum(ray.get([double.remote(i) for i in range(TASKS)]))
    elapsed = time.perf_counter() - start
    print(f"{TASKS:,} tasks in {elapsed:.1f} s, {TASKS / elapsed:,.0f} a second; they add up to {total:,}")
    assert total == TASKS * (TASKS - 1)
    ray.shutdown()


if __name__ == "__main__":
    main()
