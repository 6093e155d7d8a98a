"""The workers' output: the first line of a kind at once, floods of the same as a count; in virtual time."""

from __future__ import annotations

import pytest

from shoal._session.log_stream import Deduplicator

W1, W2, W3 = b"w1", b"w2", b"w3"


@pytest.fixture
def dedup() -> Deduplicator:
    return Deduplicator(window_s=5.0)


def add(dedup: Deduplicator, source: bytes, line: str, now: float, *, is_stderr: bool = False) -> list[str]:
    return [text for text, _ in dedup.add(source, f"({source.decode()})", line, is_stderr, now)]


def test_first_line_is_shown_at_once(dedup: Deduplicator) -> None:
    assert add(dedup, W1, "hello", 0.0) == ["(w1) hello"]
    assert add(dedup, W1, "other", 0.0) == ["(w1) other"]


def test_lines_of_one_process_are_all_shown(dedup: Deduplicator) -> None:
    """A progress counter of one task is not a flood."""
    shown = [add(dedup, W1, f"step {n}", 0.1 * n) for n in range(5)]
    assert shown == [[f"(w1) step {n}"] for n in range(5)]


def test_same_line_from_others_becomes_a_count(dedup: Deduplicator) -> None:
    assert add(dedup, W1, "loading", 0.0) == ["(w1) loading"]
    assert add(dedup, W2, "loading", 1.0) == []
    assert add(dedup, W3, "loading", 2.0) == []
    assert dedup.due(4.9) == []
    assert dedup.due(5.0) == [("(w3) loading [repeated 2x across cluster]", False)]
    assert dedup.due(100.0) == []


def test_words_with_digits_do_not_count(dedup: Deduplicator) -> None:
    add(dedup, W1, "epoch 1 loss=0.5 on cuda:0", 0.0)
    assert add(dedup, W2, "epoch 2 loss=0.25 on cuda:1", 0.0) == []
    assert add(dedup, W2, "evaluation 2 loss=0.25 on cuda:1", 0.0) == ["(w2) evaluation 2 loss=0.25 on cuda:1"]


def test_single_repeat_is_shown_as_it_is(dedup: Deduplicator) -> None:
    add(dedup, W1, "loading", 0.0)
    add(dedup, W2, "loading", 0.0)
    assert dedup.due(5.0) == [("(w2) loading", False)]


def test_due_counts_come_before_the_line_that_found_them(dedup: Deduplicator) -> None:
    add(dedup, W1, "loading", 0.0)
    add(dedup, W2, "loading", 1.0)
    assert add(dedup, W1, "done", 6.0) == ["(w2) loading", "(w1) done"]


def test_after_the_window_a_line_is_new_again(dedup: Deduplicator) -> None:
    add(dedup, W1, "loading", 0.0)
    assert add(dedup, W2, "loading", 5.0) == ["(w2) loading"]


def test_count_keeps_the_stream_it_came_from(dedup: Deduplicator) -> None:
    add(dedup, W1, "warning", 0.0, is_stderr=True)
    add(dedup, W2, "warning", 0.0, is_stderr=True)
    assert dedup.due(5.0) == [("(w2) warning", True)]


def test_empty_lines_are_never_counted(dedup: Deduplicator) -> None:
    add(dedup, W1, "", 0.0)
    assert add(dedup, W2, "", 0.0) == ["(w2) "]
    assert dedup.flush() == []


def test_nothing_is_kept_back_at_the_end(dedup: Deduplicator) -> None:
    add(dedup, W1, "loading", 0.0)
    for _ in range(10):
        add(dedup, W2, "loading", 0.0)
    assert dedup.flush() == [("(w2) loading [repeated 10x across cluster]", False)]
    assert dedup.flush() == []
