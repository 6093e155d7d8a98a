"""Actors: objects that live in a process of their own and keep state between calls."""

from __future__ import annotations

import shoal as ray


@ray.remote
class Counter:
    def __init__(self, start: int = 0) -> None:
        self.value = start

    def add(self, n: int = 1) -> int:
        self.value += n
        return self.value

    def read(self) -> int:
        return self.value


@ray.remote
def add_from_a_task(counter: ray.actor.ActorHandle, times: int) -> None:
    """A handle can be passed on: tasks share the actor with the driver."""
    ray.get([counter.add.remote() for _ in range(times)])


def main() -> None:
    ray.init()

    counter = Counter.remote()
    # Calls from one caller run in the order in which they were made.
    replies = ray.get([counter.add.remote() for _ in range(10)])
    print("one counter:", replies)
    assert replies == list(range(1, 11))

    ray.get([add_from_a_task.remote(counter, 5) for _ in range(4)])
    shared = ray.get(counter.read.remote())
    print("after four tasks added five each:", shared)
    assert shared == 30

    # Each actor is its own process with its own state.
    counters = [Counter.remote(start) for start in (0, 100, 200)]
    values = ray.get([c.add.remote(1) for c in counters])
    print("three counters:", values)
    assert values == [1, 101, 201]
    ray.shutdown()


if __name__ == "__main__":
    main()
