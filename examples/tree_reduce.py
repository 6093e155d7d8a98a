"""Add up partial results in a tree: log2(n) steps, and the driver never sees the numbers between."""

from __future__ import annotations

import shoal as ray

LEAVES = 64


@ray.remote
def partial_sum(first: int, last: int) -> int:
    return sum(range(first, last))


@ray.remote
def add(left: int, right: int) -> int:
    return left + right


def main() -> None:
    ray.init()
    step = 1_000
    level = [partial_sum.remote(i * step, (i + 1) * step) for i in range(LEAVES)]
    depth = 0
    while len(level) > 1:
        level = [add.remote(left, right) for left, right in zip(level[::2], level[1::2], strict=True)]
        depth += 1

    total = ray.get(level[0])
    print(f"{LEAVES} partial sums added in {depth} levels: {total:,}")
    assert total == sum(range(LEAVES * step))
    ray.shutdown()


if __name__ == "__main__":
    main()
