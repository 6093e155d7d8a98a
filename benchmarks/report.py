"""The report of a comparison: a table, the figures behind it, and a chart."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from ray_venv import RAY_VERSION
from rows import START_UP, Row


@dataclass(frozen=True)
class Line:
    """One line of the table: the medians, the ratio to Ray, and the verdict."""

    title: str
    unit: str
    shoal: float | None
    ray: float | None
    #: How many times better than Ray: rates divide one way, times the other.
    ratio: float | None
    required: str
    #: What the ratio must be at least, where that is the requirement.
    required_ratio: float | None
    passed: bool
    beside: str


def describe_machine() -> dict[str, str | int | None]:
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    return {
        "cpus": os.cpu_count(),
        "cpu_model": model,
        "system": platform.platform(),
        "python": platform.python_version(),
        "shoal": version("shoal"),
        "ray": RAY_VERSION,
    }


def row_lines(rows: Sequence[Row], rates: dict[str, dict[str, list[float]]]) -> list[Line]:
    """Of the rows that were measured: row key → participant → the rate of each round."""
    lines = []
    for row in rows:
        if row.key not in rates:
            continue
        medians = {name: median(values) for name, values in rates[row.key].items()}
        shoal, ray = medians.pop("shoal", None), medians.pop("ray", None)
        ratio = shoal / ray if shoal and ray else None
        passed = ratio is not None and ratio >= row.times_ray
        required = f"≥ {row.times_ray:g}×"
        for name, share in row.shares.items():
            required += f" and ≥ {share:.0%} of {name}"
            passed = passed and shoal is not None and name in medians and shoal >= share * medians[name]
        beside = ", ".join(
            f"{name} {_figure(value)}" + (f" ({shoal / value:.0%} of it)" if shoal else "")
            for name, value in medians.items()
        )
        lines.append(Line(row.title, row.unit, shoal, ray, ratio, required, row.times_ray, passed, beside))
    return lines


def start_up_lines(start_up: dict[str, list[dict[str, float]]]) -> list[Line]:
    """Library → the times of each fresh process, in seconds."""
    lines = []
    for time in START_UP if start_up else ():
        medians = {name: median(run[time.key] for run in runs) for name, runs in start_up.items()}
        shoal, ray = medians.get("shoal"), medians.get("ray")
        ratio = ray / shoal if shoal and ray else None
        passed = shoal is not None and shoal <= time.limit_s
        lines.append(Line(time.title, "s", shoal, ray, ratio, f"≤ {time.limit_s:g} s", None, passed, ""))
    return lines


def write_report(directory: Path, table: str, results: str, title: str, lines: list[Line], raw: dict[str, Any]) -> str:
    """Write the files ``table`` and ``results``, which has the ``raw`` figures too, to ``directory``; returns the
    table."""
    machine = describe_machine()
    text = make_table(title, machine, lines)
    directory.mkdir(exist_ok=True, parents=True)
    (directory / table).write_text(text)
    figures = {"machine": machine, "lines": [asdict(line) for line in lines], **raw}
    (directory / results).write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    return text


def make_table(title: str, machine: dict[str, str | int | None], lines: list[Line]) -> str:
    text = [
        f"# {title}",
        "",
        f"{machine['cpus']} × {machine['cpu_model']}, {machine['system']}, Python {machine['python']}; "
        f"Shoal {machine['shoal']}, Ray {machine['ray']}, both with `num_cpus=2`. Medians.",
        "",
        "| | unit | Shoal | Ray | better by | required | | beside it |",
        "|---|---|--:|--:|--:|---|---|---|",
    ]
    for line in lines:
        ratio = "–" if line.ratio is None else f"{line.ratio:.1f}×"
        text.append(
            f"| {line.title} | {line.unit} | {_figure(line.shoal)} | {_figure(line.ray)} | {ratio} "
            f"| {line.required} | {'pass' if line.passed else 'FAIL'} | {line.beside} |"
        )
    passed = sum(line.passed for line in lines)
    return "\n".join([*text, "", f"{passed} of {len(lines)} rows reach what is required.", ""])


def draw_chart(path: Path, lines: list[Line]) -> None:
    """A bar for each ratio on a logarithmic scale, and a mark where the requirement is."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = [line for line in lines if line.ratio is not None]
    figure, axis = plt.subplots(figsize=(10, 0.8 + 0.36 * len(shown)), layout="constrained")
    for place, line in enumerate(shown):
        assert line.ratio is not None
        axis.barh(place, line.ratio - 1, left=1, color="#0f766e" if line.passed else "#c2410c", height=0.68)
        if line.required_ratio is not None:
            axis.plot([line.required_ratio] * 2, [place - 0.42, place + 0.42], color="black", linewidth=2)
        label = f"{line.ratio:.1f}×   {_figure(line.shoal)} {line.unit}"
        axis.annotate(label, (max(line.ratio, line.required_ratio or 1), place), xytext=(6, 0),
                      textcoords="offset points", va="center", fontsize=8.5)  # fmt: skip
    axis.set_xscale("log")
    axis.set_ylim(len(shown) - 0.4, -0.6)
    axis.set_xlim(min([0.8, *(line.ratio for line in shown if line.ratio)]), axis.get_xlim()[1] * 6)
    axis.axvline(1, color="#64748b", linewidth=1)
    axis.xaxis.set_major_formatter("{x:g}×")
    axis.set_yticks(range(len(shown)), [line.title for line in shown])
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", alpha=0.3)
    axis.set_axisbelow(True)
    axis.set_title(f"How many times better than Ray {RAY_VERSION} (black mark: required at least)", loc="left")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _figure(value: float | None) -> str:
    """Three significant digits, without an exponent."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
