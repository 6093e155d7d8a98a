from __future__ import annotations

import logging
import queue

import pytest

from shoal._owner.drains import Drains
from shoal_common.channel import frames


def test_whoever_comes_later_is_told_too() -> None:
    drains, told = Drains(), queue.Queue[float | None]()
    drains.add(told.put)
    drains.on_news(frames.NodeDrains(0))
    assert told.get(timeout=60) is None, "nobody has said when"
    drains.on_news(frames.NodeDrains(1_500))
    assert told.get(timeout=60) == 1.5
    later = queue.Queue[float | None]()
    drains.add(later.put)
    assert later.get(timeout=60) == 1.5
    assert told.empty()


def test_a_callback_that_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    drains, logged = Drains(), queue.Queue[str]()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logged.put(record.getMessage())

    handler = Handler()
    logging.getLogger("shoal").addHandler(handler)
    try:
        drains.add(lambda deadline: 1 / 0)
        drains.on_news(frames.NodeDrains(0))
        assert "A callback of on_drain failed" in logged.get(timeout=60)
    finally:
        logging.getLogger("shoal").removeHandler(handler)
