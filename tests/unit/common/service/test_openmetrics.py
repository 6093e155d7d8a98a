from __future__ import annotations

from shoal_common.service.metrics import Family, grouped, render, sample

CALLS, HEAT = Family("calls", "counter", 'so "many"'), Family("heat", "gauge")


def test_both_forms_have_the_same_series_and_their_own_headings() -> None:
    samples = [sample(CALLS, 2, kind="a"), sample(HEAT, 1.5), sample(CALLS, 3, kind="b")]
    assert render(grouped(samples)).splitlines() == [
        '# HELP calls_total so "many"',
        "# TYPE calls_total counter",
        'calls_total{kind="a"} 2.0',
        'calls_total{kind="b"} 3.0',
        "# TYPE heat gauge",
        "heat 1.5",
    ]
    assert render(grouped(samples), openmetrics=True).splitlines() == [
        '# HELP calls so \\"many\\"',
        "# TYPE calls counter",
        'calls_total{kind="a"} 2.0',
        'calls_total{kind="b"} 3.0',
        "# TYPE heat gauge",
        "heat 1.5",
        "# EOF",
    ]
