"""What the user sees: a progress bar, leaderboards, a plot."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TextIO

from trainer import Entry, Progress

BAR_WIDTH = 30


class ProgressBar:
    """One line that redraws itself on a terminal; a new line every tenth of the way elsewhere."""

    def __init__(self, stream: TextIO = sys.stdout) -> None:
        self._stream = stream
        self._tenths = 0

    def show(self, progress: list[Progress]) -> None:
        done = sum(p.done for p in progress)
        total = sum(p.total for p in progress)
        finished = sum(p.done == p.total for p in progress)
        filled = BAR_WIDTH * done // total
        line = (
            f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] "
            f"{done:>3}/{total} fits, {finished}/{len(progress)} requests done"
        )
        if self._stream.isatty():
            self._stream.write("\r" + line + ("\n" if done == total else ""))
        elif 10 * done // total > self._tenths:
            self._tenths = 10 * done // total
            self._stream.write(line + "\n")
        self._stream.flush()


def print_leaderboard(title: str, leaderboard: list[Entry]) -> None:
    print(f"\n{title}")
    print(f"     {'model':<21}{'accuracy':>16}{'CPU time':>11}")
    for place, entry in enumerate(leaderboard, start=1):
        print(
            f"{place:>3}. {entry.model:<21}{entry.accuracy:>8.1%} ± {entry.spread:>5.1%}{entry.seconds:>9.2f} s"
            f"{'  <- winner' if place == 1 else ''}"
        )


def save_plot(leaderboards: dict[str, list[Entry]], path: Path) -> None:
    """One panel a data set: a dot for each fold, a bar at the mean, the winner in colour."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    winner_colour, other_colour = "#c2410c", "#64748b"
    columns = 2
    rows = -(-len(leaderboards) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(11, 3.6 * rows), layout="constrained", squeeze=False)
    figure.get_layout_engine().set(hspace=0.06, wspace=0.04)
    for axis in axes.flat[len(leaderboards) :]:
        axis.set_visible(False)
    for axis, (title, leaderboard) in zip(axes.flat, leaderboards.items(), strict=False):
        for place, entry in enumerate(leaderboard):
            colour = winner_colour if place == 0 else other_colour
            axis.plot(
                [100 * a for a in entry.accuracies], [place] * len(entry.accuracies), "o", color=colour, alpha=0.35
            )
            axis.plot([100 * entry.accuracy], [place], "|", color=colour, markersize=16, markeredgewidth=3)
        axis.set_yticks(range(len(leaderboard)), [entry.model for entry in leaderboard])
        axis.get_yticklabels()[0].set(color=winner_colour, weight="bold")
        axis.invert_yaxis()
        axis.set_title(f"{title}: {leaderboard[0].accuracy:.1%}", loc="left", weight="bold", fontsize=11)
        axis.set_xlabel("accuracy, %")
        axis.grid(axis="x", alpha=0.3)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
    figure.suptitle("Which model wins? Each dot is one fold of five, each bar the mean", x=0.01, ha="left")
    figure.savefig(path, dpi=130)
    plt.close(figure)
