"""Process results in the order in which they finish, with a bounded number in flight.

``get`` on a list waits for its slowest task. ``wait`` hands over whatever is ready, so that work on the
early results overlaps with the late ones.
"""

from __future__ import annotations

import random
import time

import shoal as ray

TASKS = 40
MAX_IN_FLIGHT = 8


# It waits more than it computes, so several share a CPU.
@ray.remote(num_cpus=0.25)
def measure(sample: int, seconds: float) -> tuple[int, float]:
    time.sleep(seconds)
    return sample, seconds


def main() -> None:
    ray.init()
    rng = random.Random(7)
    durations = [rng.choice([0.005, 0.01, 0.08]) for _ in range(TASKS)]

    finished: list[int] = []
    in_flight: list[ray.ObjectRef] = []
    for sample, seconds in enumerate(durations):
        if len(in_flight) == MAX_IN_FLIGHT:
            ready, in_flight = ray.wait(in_flight, num_returns=1)
            finished += [number for number, _ in ray.get(ready)]
        in_flight.append(measure.remote(sample, seconds))
    while in_flight:
        ready, in_flight = ray.wait(in_flight, num_returns=1)
        finished += [number for number, _ in ray.get(ready)]

    print("finished in this order:", *finished)
    assert sorted(finished) == list(range(TASKS))
    ray.shutdown()


if __name__ == "__main__":
    main()
