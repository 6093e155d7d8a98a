"""How often the same is asked."""

from __future__ import annotations

import pytest

from shoal_dashboard.cluster.pace import Pace


def test_the_first_question_is_asked_at_once() -> None:
    assert Pace().pause(now=0.0) == 0.0


def test_what_takes_long_is_asked_less_often() -> None:
    pace = Pace()
    pace.answered(began=10.0, ended=10.5)
    assert pace.pause(10.5) == pytest.approx(1.5)
    assert pace.pause(12.1) == 0.0
    pace.answered(began=20.0, ended=20.001)
    assert pace.pause(20.001) == pytest.approx(0.003)
