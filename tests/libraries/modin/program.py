"""A million rows: read_csv, groupby, merge, apply and more give what pandas gives."""

from __future__ import annotations

import os

os.environ["MODIN_ENGINE"] = "ray"
os.environ["MODIN_MEMORY"] = str(2 * 10**9)
os.environ["MODIN_CPUS"] = "2"

import numpy
import pandas

import ray

ROWS = 1_000_000


def work(pd):
    """The same with pandas and with modin."""
    frame = pd.read_csv("rows.csv")
    names = pd.DataFrame({"key": range(100), "name": [f"name{key}" for key in range(100)]})
    merged = frame.merge(names, on="key")
    return {
        "read_csv": frame,
        "groupby": frame.groupby("key").agg({"x": "sum", "y": "mean"}),
        "groupby of two": frame.groupby(["key", "half"])["x"].count(),
        "merge": merged,
        "sort_values": merged.sort_values(["name", "x", "y"]).reset_index(drop=True),
        "apply by column": frame[["x", "y"]].apply(lambda column: column.max() - column.min()),
        "apply by row": frame[["x", "y"]].head(20_000).apply(lambda row: row["x"] + row["y"], axis=1),
        "map": frame["x"].map(lambda x: x % 7),
        "filter": frame[frame["x"] > 500_000],
        "describe": frame.describe(),
    }


def plain(value):
    return value._to_pandas() if hasattr(value, "_to_pandas") else value


if __name__ == "__main__":
    random = numpy.random.default_rng(1)
    rows = {
        "key": random.integers(0, 100, ROWS),
        "x": random.integers(0, ROWS, ROWS),
        "y": random.random(ROWS).round(6),
    }
    pandas.DataFrame({**rows, "half": rows["x"] % 2 == 0}).to_csv("rows.csv", index=False)
    expected = work(pandas)

    import modin.pandas

    for name, value in work(modin.pandas).items():
        same = pandas.testing.assert_frame_equal if value.ndim == 2 else pandas.testing.assert_series_equal
        same(plain(value), expected[name])
        print(name, value.shape, flush=True)
    assert ray.is_initialized()
    print(modin.__version__, "as", pandas.__version__)
