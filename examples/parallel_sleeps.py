"""Four one-second sleeps on one CPU take about one second, not four."""

from __future__ import annotations

import time

import shoal as ray


# CPUs are what Shoal counts, not what a task uses. Asleep it uses hardly any, so four of these share one.
@ray.remote(num_cpus=0.25)
def sleep_a_second(i: int) -> int:
    time.sleep(1)
    return i


def main() -> None:
    ray.init()
    start = time.perf_counter()
    done = ray.get([sleep_a_second.remote(i) for i in range(4)])
    elapsed = time.perf_counter() - start
    print(f"{len(done)} seconds of sleep in {elapsed:.1f} s")
    assert done == [0, 1, 2, 3]
    assert elapsed < 3
    ray.shutdown()


if __name__ == "__main__":
    main()
