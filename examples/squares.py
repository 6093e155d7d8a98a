"""Run a function on other processes: the smallest Shoal program."""

from __future__ import annotations

import shoal as ray


@ray.remote
def square(x: int) -> int:
    return x * x


def main() -> None:
    ray.init()
    futures = [square.remote(i) for i in range(10)]
    squares = ray.get(futures)
    print("squares:", squares)
    assert squares == [i * i for i in range(10)]
    ray.shutdown()


if __name__ == "__main__":
    main()
