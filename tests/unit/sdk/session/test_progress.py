"""Bars of several processes below one another, and what is printed in between above them."""

from __future__ import annotations

import builtins
import io
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from tqdm.std import tqdm

from shoal._session import progress
from shoal._session.progress import RAY_TQDM_MAGIC, Bars, ProgressBarState, apart, line_of


class Screen(io.StringIO):
    """What somebody in front of a terminal sees of all that was written to it."""

    def lines(self) -> list[str]:
        rows, row, column = [""], 0, 0
        for part in re.split(r"(\r|\n|\x1b\[A)", self.getvalue()):
            if part == "\r":
                column = 0
            elif part == "\n":
                row, column = row + 1, 0
                rows += [""] * (row + 1 - len(rows))
            elif part == "\x1b[A":
                row -= 1
            else:
                rows[row] = rows[row].ljust(column)[:column] + part + rows[row][column + len(part) :]
                column += len(part)
        return [line.rstrip() for line in rows if line.strip()]


@pytest.fixture
def screen() -> Screen:
    return Screen()


@pytest.fixture
def bars(screen: Screen) -> Iterator[Bars]:
    before = builtins.print
    yield Bars(partial(tqdm, file=screen, bar_format="{desc}{n_fmt}/{total_fmt}", ncols=80))
    builtins.print = before


def state(name: str, x: float = 0, **facts: Any) -> ProgressBarState:
    plain = {"total": 10, "unit": "it", "pos": 0, "pid": 7, "ip": "10.0.0.1", "closed": False}
    return {"__magic_token__": RAY_TQDM_MAGIC, "x": x, "desc": name, "uuid": name, **plain, **facts}  # type: ignore[typeddict-item]


def test_a_line_of_a_worker_is_text_or_a_bar_or_both() -> None:
    line = line_of(state("a", 3)).removesuffix("\n")
    assert apart(line) == ("", state("a", 3))
    assert apart("no newline" + line) == ("no newline", state("a", 3))
    assert apart("text") == ("text", None)
    assert apart(line[:-5]) == (line[:-5], None), "not whole"
    assert apart(line.replace('"x":3', '"x":"3"'))[1] is None


def test_bars_stand_below_one_another_by_process(bars: Bars, screen: Screen) -> None:
    bars.update(state("a"))
    bars.update(state("b", pid=8))
    bars.update(state("second of 7", pos=1))
    bars.update(state("mine", pid=9), own=True)
    bars.update(state("b", 5, pid=8))
    assert screen.lines() == [
        "(pid=7, ip=10.0.0.1) a: 0/10",
        "(pid=7, ip=10.0.0.1) second of 7: 0/10",
        "(pid=8, ip=10.0.0.1) b: 5/10",
        "mine: 0/10",
    ]


def test_what_is_printed_stands_above_them(bars: Bars, screen: Screen) -> None:
    bars.update(state("a", 1))
    bars.update(state("b", 2))
    for text in ("one", "two"):
        with bars.aside():
            screen.write(text + "\n")
    bars.update(state("a", 9))
    assert screen.lines() == ["one", "two", "(pid=7, ip=10.0.0.1) a: 9/10", "(pid=7, ip=10.0.0.1) b: 2/10"]


def test_a_closed_bar_stays_above_the_others(bars: Bars, screen: Screen) -> None:
    for name in ("a", "b", "c"):
        bars.update(state(name), own=True)
    bars.update(state("b", 10, closed=True), own=True)
    bars.update(state("c", 4), own=True)
    assert screen.lines() == ["b: 10/10", "a: 0/10", "c: 4/10"]


def test_at_the_end_those_of_others_are_closed(bars: Bars, screen: Screen) -> None:
    bars.update(state("mine"), own=True)
    bars.update(state("theirs", 3))
    bars.close_others()
    bars.update(state("mine", 4), own=True)
    assert screen.lines() == ["(pid=7, ip=10.0.0.1) theirs: 3/10", "mine: 4/10"]


def test_a_total_that_becomes_known(bars: Bars, screen: Screen) -> None:
    bars.update(state("a", total=None), own=True)
    bars.update(state("a", 3, total=12), own=True)
    assert screen.lines() == ["a: 3/12"]


def test_so_many_bars_and_no_more(bars: Bars, screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "MAX_BARS", 2)
    for name in ("a", "b", "c"):
        bars.update(state(name), own=True)
    assert screen.lines() == ["a: 0/10", "b: 0/10"]


@pytest.mark.parametrize(("setting", "patched"), [("1", True), ("0", False)])
def test_print_tears_none(bars: Bars, monkeypatch: pytest.MonkeyPatch, setting: str, patched: bool) -> None:
    monkeypatch.setenv("SHOAL_TQDM_PATCH_PRINT", setting)
    before: Callable[..., None] = builtins.print
    bars.update(state("a"))
    assert (builtins.print is progress.safe_print) == patched
    bars.update(state("a", closed=True))
    assert builtins.print is before


def test_without_tqdm_it_is_said_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    bars = Bars()
    bars.update(state("a"))
    bars.update(state("b"))
    assert [record.message for record in caplog.records] == [
        "No progress bars are shown, as tqdm is not installed here: pip install tqdm"
    ]
