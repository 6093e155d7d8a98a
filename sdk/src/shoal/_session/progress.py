"""Progress bars of all processes of a job, which its driver draws below one another.

A worker prints what a bar of its stands at as a line of JSON (``line_of``), in the place where it belongs among the
other lines that it prints; the driver takes these lines out of the workers' output (``LogStream``) and draws the bars
with tqdm, where that is installed: in a terminal, or in a notebook as widgets. Whatever is printed in between goes
above the bars.
"""

from __future__ import annotations

import builtins
import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypedDict

import msgspec

logger = logging.getLogger("shoal")

#: Such lines are no text of the program's (Ray's word).
RAY_TQDM_MAGIC = "__ray_tqdm_magic_token__"
_BEGINS = f'{{"__magic_token__":"{RAY_TQDM_MAGIC}",'
#: Bars that are open at the same time; more are not drawn.
MAX_BARS = 1000
MAX_DESCRIPTION = 200

_print = builtins.print


class ProgressBarState(TypedDict):
    """What one bar stands at."""

    __magic_token__: str
    #: So many units are done,
    x: int | float
    #: of so many; None = nobody knows.
    total: int | float | None
    desc: str
    unit: str
    #: Its place among the bars of its process.
    pos: int
    pid: int
    ip: str
    uuid: str
    closed: bool


_decode = msgspec.json.Decoder(ProgressBarState).decode


def line_of(state: ProgressBarState) -> str:
    """With its newline: printed at once, no other thread's text gets in between."""
    return json.dumps(state, separators=(",", ":")) + "\n"


def apart(line: str) -> tuple[str, ProgressBarState | None]:
    """A line that a worker has printed: its text, which may be the start of one without newline, and its bar."""
    at = line.find(_BEGINS)
    if at < 0:
        return line, None
    try:
        return line[:at], _decode(line[at:])
    except msgspec.MsgspecError:
        return line, None  # somebody has printed something of the kind


class _Bar:
    """An open one. ``order``: by which bars are sorted. ``drawn``: tqdm's. ``own``: of this process."""

    def __init__(self, order: tuple[int, int, int], drawn: Any, own: bool) -> None:
        self.order = order
        self.drawn = drawn
        self.own = own

    def show(self, state: ProgressBarState) -> None:
        drawn = self.drawn
        if state["total"] != drawn.total:
            if hasattr(drawn, "container"):  # a widget, whose length is fixed otherwise
                drawn.reset(state["total"])
            drawn.total = state["total"]
        drawn.n = state["x"]
        drawn.set_description_str(description(state, self.own), refresh=False)
        drawn.refresh()


class Bars:
    """All bars that are open, in the order of their processes, as these came. Thread-safe."""

    def __init__(self, draw: Callable[..., Any] | None = None) -> None:
        """``draw``: tqdm's class; None = the one that suits the terminal or notebook."""
        self._draw = draw
        self._no_tqdm = False
        self._lock = threading.RLock()
        self._open: dict[str, _Bar] = {}
        #: Processes that have had a bar, in the order of their first one.
        self._processes: dict[tuple[str, int], int] = {}
        self._opened = 0

    def update(self, state: ProgressBarState, *, own: bool = False) -> None:
        """Open, redraw or close a bar. A closed one stays above the others, as it was at last. ``own``: it is this
        process's."""
        with self._lock:
            bar = self._open.get(state["uuid"]) or self._begin(state, own)
            if bar is None:
                return
            bar.show(state)
            if state["closed"]:
                self._close(state["uuid"])

    def close_others(self) -> None:
        """Those of other processes: nothing more is heard of these."""
        with self._lock:
            for each in [each for each, bar in self._open.items() if not bar.own]:
                self._close(each)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Within it there are no bars in the terminal: what is written there tears none."""
        with self._lock:
            self._clear()
            try:
                yield
            finally:
                for bar in self._open.values():
                    bar.drawn.refresh()

    def _begin(self, state: ProgressBarState, own: bool) -> _Bar | None:
        draw = self._draw or self._tqdm()
        if draw is None or len(self._open) >= MAX_BARS:
            return None
        process = self._processes.setdefault((state["ip"], state["pid"]), len(self._processes))
        self._opened += 1
        self._clear()
        drawn = draw(total=state["total"], unit=state["unit"], position=len(self._open), leave=True, dynamic_ncols=True)
        bar = self._open[state["uuid"]] = _Bar((process, state["pos"], self._opened), drawn, own)
        self._arrange()
        if len(self._open) == 1 and os.environ.get("SHOAL_TQDM_PATCH_PRINT", "1") != "0":
            builtins.print = safe_print
        return bar

    def _close(self, uuid: str) -> None:
        self._clear()
        drawn = self._open.pop(uuid).drawn
        drawn.pos = 0
        drawn.close()
        self._arrange()
        if not self._open:
            self._processes.clear()
            if builtins.print is safe_print:
                builtins.print = _print

    def _clear(self) -> None:
        for bar in self._open.values():
            bar.drawn.clear()

    def _arrange(self) -> None:
        for place, bar in enumerate(sorted(self._open.values(), key=lambda bar: bar.order)):
            bar.drawn.pos = -place  # tqdm's sign for one that it must not move
            bar.drawn.refresh()

    def _tqdm(self) -> Callable[..., Any] | None:
        if self._no_tqdm:
            return None
        try:
            from tqdm.auto import tqdm
        except ImportError:
            self._no_tqdm = True
            logger.warning("No progress bars are shown, as tqdm is not installed here: pip install tqdm")
            return None
        self._draw = tqdm
        return self._draw


def description(state: ProgressBarState, own: bool) -> str:
    """Before the bar: whose it is, unless it is this process's own, and what it is called."""
    text = state["desc"][:MAX_DESCRIPTION]
    if not own:
        text = f"(pid={state['pid']}, ip={state['ip']}) {text}"
    return f"{text.rstrip()}: " if text else ""


#: Of this process.
bars = Bars()


def safe_print(*args: Any, **kwargs: Any) -> None:
    """``print`` above the bars that are drawn in this process, without tearing them. While there are any, ``print`` is
    this function, unless the environment has SHOAL_TQDM_PATCH_PRINT=0."""
    if kwargs.get("file") not in (None, sys.stdout, sys.stderr):
        _print(*args, **kwargs)
        return
    with bars.aside():
        _print(*args, **kwargs)
