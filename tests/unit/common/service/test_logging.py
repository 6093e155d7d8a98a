from __future__ import annotations

import io
import json
import logging as stdlib
from collections.abc import Iterator

import pytest
import structlog

from shoal_common.service import logging


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = stdlib.getLogger()
    handlers, level = root.handlers, root.level
    yield io.StringIO()
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_json_with_service_level_and_context(stream: io.StringIO) -> None:
    logging.configure("sample", stream=stream)
    structlog.contextvars.bind_contextvars(job_id="07")
    structlog.get_logger().info("lease_granted", pid=3)
    (line,) = lines(stream)
    timestamp = line.pop("timestamp")
    assert line == {"event": "lease_granted", "service": "sample", "level": "info", "job_id": "07", "pid": 3}
    assert str(timestamp).endswith("Z")


def test_what_is_below_the_level_is_left_out(stream: io.StringIO) -> None:
    logging.configure("sample", "warning", stream=stream)
    structlog.get_logger().info("quiet")
    stdlib.getLogger("asyncio").info("quiet too")
    structlog.get_logger().warning("loud")
    assert [line["event"] for line in lines(stream)] == ["loud"]


def test_the_standard_librarys_logging_comes_out_in_the_same_form(stream: io.StringIO) -> None:
    logging.configure("sample", stream=stream)
    stdlib.getLogger("asyncio").error("task %s failed", "x")
    (line,) = lines(stream)
    assert (line["event"], line["service"], line["level"]) == ("task x failed", "sample", "error")


def test_an_exception_is_one_line(stream: io.StringIO) -> None:
    logging.configure("sample", stream=stream)
    try:
        raise ValueError("broken")
    except ValueError:
        structlog.get_logger().exception("failed")
    (line,) = lines(stream)
    assert line["event"] == "failed"
    assert "ValueError" in json.dumps(line["exception"])


@pytest.mark.usefixtures("stream")
def test_a_full_disk_stops_nobody() -> None:
    full = open("/dev/full", "w", buffering=1)  # noqa: SIM115 - closing it would fail
    logging.configure("sample", stream=full)
    structlog.get_logger().error("not_written")
    stdlib.getLogger("asyncio").error("not written either")
    with pytest.raises(OSError, match="No space left"):
        full.close()
