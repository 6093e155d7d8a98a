"""Rows as a table, JSON, YAML or CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

FORMATS = ("table", "json", "yaml", "csv")

format_option = click.option(
    "--format", "form", type=click.Choice(("default", *FORMATS)), default="default", help="default: a table."
)


def counted(number: int, thing: str) -> str:
    """As "1 node", "2 nodes"."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def shown(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], form: str) -> str:
    """With a newline at the end, unless there is nothing."""
    if form == "json":
        return json.dumps([dict(row) for row in rows], indent=2, default=str) + "\n"
    if form == "yaml":
        return "".join(map(_yaml, rows)) or "[]\n"
    if form == "csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([[_cell(row[name]) for name in columns] for row in rows])
        return text.getvalue()
    return _table(rows, columns)


def _yaml(row: Mapping[str, Any]) -> str:
    """Values as JSON, which is YAML, too."""
    lines = [f"{name}: {json.dumps(value, default=str)}" for name, value in row.items()]
    return "".join(f"{'- ' if not at else '  '}{line}\n" for at, line in enumerate(lines))


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    cells = [[name.upper() for name in columns], *([_cell(row[name]) for name in columns] for row in rows)]
    widths = [max(len(line[at]) for line in cells) for at in range(len(columns))]
    return "".join("  ".join(map(str.ljust, line, widths)).rstrip() + "\n" for line in cells)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = json.dumps(value, default=str) if isinstance(value, (dict, list)) else str(value)
    return "".join(c if c.isprintable() else " " for c in text)
