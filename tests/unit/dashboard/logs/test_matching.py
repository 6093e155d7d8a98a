from __future__ import annotations

import pytest

from shoal_dashboard.logs.matching import AROUND, LINES_OF_FILE, Hit, LogFile, Matching, checked, chosen
from shoal_dashboard.logs.query import QueryError


def file(name: str, size: int, at: int) -> LogFile:
    return LogFile(b"n" * 16, "host", name, size, at)


def test_lines_are_counted_over_pieces_and_found_whatever_their_capitals() -> None:
    matching = Matching("Error")
    matching.feed(b"one\nan ERROR here, and an error\n")
    matching.feed(b"three\n\nfive: error")
    assert list(matching.hits) == [Hit(2, "an ", "ERROR", " here, and an error"), Hit(5, "five: ", "error", "")]
    assert matching.count == 2, "lines, not words"


def test_a_word_is_found_though_a_part_of_it_is_coloured() -> None:
    matching = Matching("größe")
    matching.feed("die \x1b[31mgrö\x1b[0mße\n".encode())
    assert [hit.word for hit in matching.hits] == ["größe"]


def test_of_many_the_last_are_shown_and_all_counted() -> None:
    matching = Matching("x")
    for _ in range(3):
        matching.feed(b"x\n" * LINES_OF_FILE)
    assert matching.count == 3 * LINES_OF_FILE
    assert [hit.line for hit in matching.hits] == list(range(2 * LINES_OF_FILE + 1, 3 * LINES_OF_FILE + 1))


def test_a_long_line_is_cut_on_both_sides() -> None:
    matching = Matching("x")
    matching.feed(b"-" * 10_000 + b"x" + b"+" * 10_000)
    (hit,) = matching.hits
    assert (hit.before, hit.after) == ("…" + "-" * AROUND, "+" * AROUND + "…")


def test_what_was_written_last_is_read_and_what_is_too_much_is_told() -> None:
    old, big, new = file("old", 3, 1), file("big", 90, 2), file("new", 5, 3)
    assert chosen([old, big, new], max_bytes=10) == ([new, old], [big])
    assert chosen([old, big, new], max_files=1) == ([new], [big, old])


@pytest.mark.parametrize("word", ["", "  ", "a\nb", "x" * 201])
def test_what_cannot_be_looked_for(word: str) -> None:
    with pytest.raises(QueryError):
        checked(word)
