"""Lines of a job's log that say who wrote them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from shoal import LoggingConfig, _structured_logs
from shoal._structured_logs import as_text, fields
from shoal.job_config import JobConfig


def record(**more: Any) -> logging.LogRecord:
    attributes = {"name": "app", "levelname": "INFO", "filename": "a.py", "lineno": 7, "created": 1.5, "process": 42}
    made = logging.makeLogRecord({**attributes, "msg": "%d of %d", "args": (1, 2), **more})
    made.message, made.asctime = made.getMessage(), "2026-01-01 00:00:00,000"
    return made


def test_the_fields_of_a_line() -> None:
    line = fields(record(user="u"), {"job_id": "01"}, ["process", "name"])
    assert list(line.items()) == [
        ("asctime", "2026-01-01 00:00:00,000"),
        ("levelname", "INFO"),
        ("message", "1 of 2"),
        ("filename", "a.py"),
        ("lineno", 7),
        ("process", 42),
        ("name", "app"),
        ("user", "u"),
        ("job_id", "01"),
        ("timestamp_ns", 1_500_000_000),
    ]
    assert as_text(line) == "2026-01-01 00:00:00,000\tINFO a.py:7 -- 1 of 2 process=42 name=app user=u job_id=01"


def test_a_traceback_ends_the_text() -> None:
    line = fields(record(exc_text="Traceback\nKeyError"), {"job_id": "01"}, [])
    assert as_text(line).splitlines()[1:] == ["Traceback", "KeyError"]
    assert as_text(line).splitlines()[0].endswith("1 of 2 job_id=01")


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    before = root.level, list(root.handlers)
    yield root
    assert (root.level, root.handlers) == before


def test_it_is_installed_and_undone(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    undo = _structured_logs.install(LoggingConfig(encoding="JSON", log_level="WARNING"))
    try:
        logging.getLogger("app").info("too little")
        try:
            raise KeyError("k")
        except KeyError:
            logging.getLogger("app").exception("bad %s", "luck", extra={"user": object})
    finally:
        undo()
    (text,) = capsys.readouterr().err.splitlines()
    line = json.loads(text)
    assert (line["levelname"], line["message"], line["filename"]) == ("ERROR", "bad luck", "test_structured_logs.py")
    assert line["exc_text"].endswith("KeyError: 'k'")
    assert line["user"] == "<class 'object'>"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"encoding": "XML"}, r"Invalid encoding type: XML\. Valid encoding types are: \['TEXT', 'JSON'\]"),
        ({"log_level": "LOUD"}, "Invalid log level: LOUD"),
        ({"additional_log_standard_attrs": ["colour"]}, "Unknown python logging standard attribute: colour"),
    ],
)
def test_what_there_is_not_is_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LoggingConfig(**arguments)


def test_a_job_takes_nothing_else() -> None:
    with pytest.raises(TypeError, match=r"must be a shoal\.LoggingConfig, not dict"):
        JobConfig(py_logging_config={"encoding": "JSON"})  # type: ignore[arg-type]
