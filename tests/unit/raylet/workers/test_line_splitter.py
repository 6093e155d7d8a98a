from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shoal_raylet.workers.line_splitter import MAX_LINE_BYTES, LineSplitter


@given(st.lists(st.text(alphabet="ab\u20ac ", max_size=5)), st.lists(st.integers(1, 7)))
def test_lines_come_out_whole_however_they_are_cut(lines: list[str], cuts: list[int]) -> None:
    data = "".join(f"{line}\n" for line in lines).encode() + b"rest"
    splitter = LineSplitter()
    got: list[str] = []
    for cut in cuts:
        got += splitter.feed(data[:cut])
        data = data[cut:]
    got += splitter.feed(data)
    assert got + splitter.end() == [*lines, "rest"]


def test_a_line_without_an_end_is_cut() -> None:
    splitter = LineSplitter()
    lines = splitter.feed(b"x" * (2 * MAX_LINE_BYTES + 5))
    assert [len(line) for line in lines] == [MAX_LINE_BYTES, MAX_LINE_BYTES]
    assert splitter.feed(b"\r\n") == ["x" * 5]
    assert splitter.end() == []


def test_the_start_of_a_line_can_be_taken_without_cutting_a_character() -> None:
    splitter = LineSplitter()
    assert splitter.feed("done\nüber €".encode()[:-1]) == ["done"]
    assert splitter.part() == "über "
    assert splitter.unfinished == b"\xe2\x82"
    assert splitter.part() == ""
    assert splitter.feed(b"\xac uro\n") == ["€ uro"]
    assert splitter.feed(b"\xff\xff") == [] and splitter.part() == "\ufffd\ufffd"


def test_bytes_that_are_not_text_do_not_stop_anything() -> None:
    assert LineSplitter().feed(b"\xff\n") == ["\ufffd"]
