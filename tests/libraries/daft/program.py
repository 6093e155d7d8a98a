"""A group-by and a join on daft's Ray runner give what its native runner gives."""

from __future__ import annotations

import ast
import os
import subprocess
import sys

os.environ["DO_NOT_TRACK"] = "true"  # no word to the makers

ROWS = 200_000


def work():
    import daft
    from daft import col

    orders = daft.from_pydict(
        {"key": [i * 7919 % 97 for i in range(ROWS)], "x": list(range(ROWS)), "y": [i * 0.5 for i in range(ROWS)]}
    ).into_partitions(4)
    names = daft.from_pydict({"key": list(range(97)), "name": [f"name{key}" for key in range(97)]})
    sums = [col("x").sum().alias("sum"), col("y").mean().alias("mean"), col("x").count().alias("n")]
    grouped = orders.groupby("key").agg(*sums)
    joined = orders.join(names, on="key").where(col("x") % 1000 == 0)
    return [
        grouped.sort("key").to_pydict(),
        joined.sort("x").to_pydict(),
        orders.where(col("x") > ROWS - 5).with_column("z", col("x") + col("y")).sort("x").to_pydict(),
    ]


if __name__ == "__main__":
    if sys.argv[1:] == ["native"]:  # one process has one runner
        print(work())
    else:
        native = subprocess.run([sys.executable, __file__, "native"], check=True, capture_output=True, text=True).stdout
        import daft

        import ray

        ray.init(address="local", num_cpus=2)
        daft.set_runner_ray()
        assert work() == ast.literal_eval(native)
        print("group-by, join and filter as with the native runner")
