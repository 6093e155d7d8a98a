"""What notebooks show of an object (``_repr_html_``): its parts in a table of two columns."""

from __future__ import annotations

from collections.abc import Iterable


def table(title: str, rows: Iterable[tuple[str, object]]) -> str:
    """``rows``: what it is, and what it says as text; all of it is escaped. Colours are the notebook's."""
    import html  # has a large table, which each worker would have too

    lines = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
        f"<td style='text-align:left'>{html.escape(str(value))}</td></tr>"
        for name, value in rows
    )
    return f"<table><caption>{html.escape(title)}</caption>{lines}</table>"
