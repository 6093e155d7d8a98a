"""Four one-second sleeps on four CPUs take about one second, not four."""

from __future__ import annotations

import time

import shoal as ray


@ray.remote
def sleep_a_second(i: int) -> int:
    time.sleep(1)
    return i


def main() -> None:
    # CPUs are what Shoal counts, not what the machine has: four sleeping tasks fit on any machine.
    ray.init(num_cpus=4)
    start = time.perf_counter()
    done = ray.get([sleep_a_second.remote(i) for i in range(4)])
    elapsed = time.perf_counter() - start
    print(f"{len(done)} seconds of sleep in {elapsed:.1f} s")
    assert done == [0, 1, 2, 3]
    assert elapsed < 3
    ray.shutdown()


if __name__ == "__main__":
    main()
