from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from shoal._session import log_stream
from shoal._session.log_stream import BatchNumbers, Deduplicator, LogStream
from shoal_proto.v1.events_pb2 import LogBatch


def test_a_batch_that_is_missing_is_noticed_once_and_each_worker_counts_for_itself() -> None:
    numbers = BatchNumbers()
    assert [numbers.gap_before(b"a", number) for number in (1, 2, 4, 5)] == [False, False, True, False]
    assert not numbers.gap_before(b"b", 1)
    assert numbers.gap_before(b"b", 3)
    assert not numbers.gap_before(b"a", 6)
    assert numbers.gap_before(b"c", 2), "its first one"
    assert not numbers.gap_before(b"n", 0), "a raylet's word has no number"


def test_of_many_workers_those_that_print_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_stream, "MAX_WORKERS", 2)
    numbers = BatchNumbers()
    for worker, number in ((b"a", 1), (b"b", 1), (b"a", 2), (b"c", 1)):
        assert not numbers.gap_before(worker, number)
    assert not numbers.gap_before(b"b", 3), "nobody knows any more"
    assert numbers.gap_before(b"c", 3)


def test_lines_that_are_missing_are_said_where_they_are_missing(capsys: pytest.CaptureFixture[str]) -> None:
    core: Any = SimpleNamespace(worker_id=b"d")
    stream = LogStream(core, "c", "/session/logs", kept=True)
    for number, line in ((1, "one"), (3, "three")):
        stream._take(LogBatch(worker_id=b"\xab", pid=7, name="f", lines=[line], number=number))
    said = capsys.readouterr()
    assert said.out == "(f pid=7) one\n(f pid=7) three\n"
    assert said.err == "(shoal) Lines of pid=7 are missing here: they are in /session/logs/worker-ab.* on its node.\n"


def test_where_counted_lines_are_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    core: Any = SimpleNamespace(worker_id=b"d")
    stream = LogStream(core, "c", "/session/logs", kept=True)
    for worker in range(4):
        stream._take(LogBatch(worker_id=bytes([worker]), pid=worker, name="f", lines=["same"], number=1))
    for _ in range(2):
        stream._show(stream._deduplicator.flush())
        stream._say_where()
    said = capsys.readouterr()
    assert said.out == "(f pid=0) same\n(f pid=3) same [repeated 3x across cluster]\n"
    assert said.err == (
        "(shoal) Repeated lines are counted: all are in /session/logs of the nodes; SHOAL_DEDUP_LOGS=0 shows them.\n"
    )


@pytest.mark.parametrize("variable", log_stream.DEDUP_VARIABLES)
def test_every_line_is_shown_when_that_is_wanted(
    variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, "0")
    core: Any = SimpleNamespace(worker_id=b"d")
    stream = LogStream(core, "c", "/session/logs", kept=True)
    for worker in range(3):
        stream._take(LogBatch(worker_id=bytes([worker]), pid=worker, name="f", lines=["same"], number=1))
    assert capsys.readouterr().out == "(f pid=0) same\n(f pid=1) same\n(f pid=2) same\n"


def test_the_oldest_of_too_many_patterns_is_told_before_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_stream, "MAX_PATTERNS", 2)
    deduplicator = Deduplicator(window_s=5)
    for source, line in ((b"1", "a"), (b"2", "a"), (b"1", "b")):
        deduplicator.add(source, "p", line, False, now=0)
    assert deduplicator.add(b"1", "p", "c", False, now=0) == [("p a", False), ("p c", False)]
    assert deduplicator.add(b"3", "p", "a", False, now=0) == [("p a", False)], "its first line again"
