"""Tasks that depend on each other's arrays: pass the reference, and Shoal brings the value.

The arrays live in shared memory. A task that gets one reads it in place; nothing is copied, and that is why the
array is read-only.
"""

from __future__ import annotations

import numpy as np

import shoal as ray

SIZE = 500


@ray.remote
def make_matrix(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((SIZE, SIZE))


@ray.remote
def multiply(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    assert not left.flags.writeable, "an array from the object store is a view that all its readers share"
    return left @ right


def main() -> None:
    ray.init()
    # The chain a·b·c·d as a tree: both halves can run at the same time, the last product waits for them.
    a, b, c, d = (make_matrix.remote(seed) for seed in range(4))
    product = multiply.remote(multiply.remote(a, b), multiply.remote(c, d))

    result = ray.get(product)
    expected = np.linalg.multi_dot(ray.get([a, b, c, d]))
    print(f"product of four {SIZE}x{SIZE} matrices, trace {np.trace(result):.3f}")
    assert np.allclose(result, expected)

    # An array that many tasks read is put into the store once.
    weights = ray.put(np.ones((SIZE, SIZE)))
    sums = ray.get([multiply.remote(weights, matrix) for matrix in (a, b, c, d)])
    assert all(np.allclose(s, np.ones((SIZE, SIZE)) @ m) for s, m in zip(sums, ray.get([a, b, c, d]), strict=True))
    ray.shutdown()


if __name__ == "__main__":
    main()
