"""Metrics in Prometheus' text."""

from __future__ import annotations

import math

from shoal_common.service.metrics import Family, Series, merge, record, render


def observed(family: Family, *values: float) -> Series:
    series = Series()
    for value in values:
        record(series, family, value)
    return series


def test_the_kinds() -> None:
    counter, gauge = Family("runs", "counter", "how many"), Family("heat", "gauge")
    took = Family("took_s", "histogram", boundaries=(1.0, 2.5))
    page = render(
        {
            counter: [((), observed(counter, 1, 2.5)), ((("kind", "a"),), observed(counter, 1))],
            gauge: [((), observed(gauge, 7, -3))],
            took: [((("kind", "a"),), observed(took, 1.0, 1.5, 9))],
        }
    )
    assert page.splitlines() == [
        "# HELP runs_total how many",
        "# TYPE runs_total counter",
        "runs_total 3.5",
        'runs_total{kind="a"} 1.0',
        "# TYPE heat gauge",
        "heat -3.0",
        "# TYPE took_s histogram",
        'took_s_bucket{kind="a",le="1.0"} 1',
        'took_s_bucket{kind="a",le="2.5"} 2',
        'took_s_bucket{kind="a",le="+Inf"} 3',
        'took_s_sum{kind="a"} 11.5',
        'took_s_count{kind="a"} 3',
    ]


def test_what_would_break_the_format_is_escaped() -> None:
    family = Family("n_total", "counter", "a\nb \\ c")
    page = render({family: [((("a-b", 'say "hi"\n\\'), ("1st", "x")), Series(math.inf))]})
    assert page.splitlines() == [
        r"# HELP n_total a\nb \\ c",
        "# TYPE n_total counter",
        r'n_total{a_b="say \"hi\"\n\\",_1st="x"} +Inf',
    ]
    assert render({Family("g", "gauge"): [((), Series(math.nan))]}).splitlines()[-1] == "g NaN"


def test_growth_adds_up_and_a_gauge_replaces() -> None:
    took = Family("took_s", "histogram", boundaries=(1.0,))
    total = Series()
    for growth in (observed(took, 0.5, 3), observed(took, 0.25)):
        merge(total, growth, took)
    assert total == Series(3.75, [2, 1])
    gauge = Family("heat", "gauge")
    merge(total, Series(4.0), gauge)
    assert total.value == 4.0
