from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest

from shoal._session import driver_logging

LOGGER = logging.getLogger("shoal")


@pytest.fixture
def forget(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Makes this a program that has not set up logging; pytest itself has, anew for each test."""
    level, propagates = LOGGER.level, LOGGER.propagate

    def forget() -> None:
        monkeypatch.setattr(logging.getLogger(), "handlers", [])
        monkeypatch.setattr(LOGGER, "handlers", [])
        monkeypatch.setattr(driver_logging, "_handler", None)

    yield forget
    LOGGER.setLevel(level)
    LOGGER.propagate = propagates


def test_a_program_without_logging_sees_messages_from_its_level_on(
    forget: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    forget()
    driver_logging.configure_logging("warning", None)
    LOGGER.info("hidden")
    LOGGER.warning("seen")
    said = capsys.readouterr().err
    assert "WARNING" in said and said.endswith("-- seen\n") and "hidden" not in said


def test_each_session_has_its_format_and_says_all_once(
    forget: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    forget()
    logging.getLogger().addHandler(logging.StreamHandler())
    driver_logging.configure_logging(logging.INFO, "1 %(message)s")
    driver_logging.configure_logging(logging.INFO, "2 %(message)s")
    LOGGER.info("said")
    assert capsys.readouterr().err == "2 said\n"
    driver_logging.configure_logging(logging.INFO, None)
    LOGGER.info("said")
    assert capsys.readouterr().err == "said\n", "by the program's own handler"
