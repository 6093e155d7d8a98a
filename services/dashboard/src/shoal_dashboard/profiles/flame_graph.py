"""A profile as a flame graph: an SVG without scripts, whose frames say more when they are pointed at. Pure.

Source: Brendan Gregg, "The Flame Graph", ACM Queue 14(2), 2016. Drawn as an icicle, the outermost frame on top.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from html import escape

from shoal_dashboard.profiles.stack_counts import Node

_WIDTH = 1200.0
_ROW = 18
#: Of a letter, about.
_LETTER = 6.6
#: Narrower ones are left out.
_LEAST = 0.6
#: Deeper ones are left out.
_MAX_ROWS = 150


def svg(root: Node, shown: Callable[[int], str]) -> str:
    """``shown``: a count, for humans."""
    frames = list(_frames(root, 0.0, 0, _WIDTH / root.count)) if root.count else []
    height = _ROW * (1 + max((row for _, _, row, _ in frames), default=0))
    drawn = "".join(_drawn(node, x, row, width, root.count, shown) for node, x, row, width in frames)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:g} {height}" role="img" '
        f'aria-label="Flame graph: {escape(shown(root.count))} in all" font-family="monospace" font-size="11">'
        f"{drawn}</svg>"
    )


def _frames(node: Node, x: float, row: int, scale: float) -> Iterator[tuple[Node, float, int, float]]:
    """With place and width, the heaviest child first."""
    waiting = [(node, x, row)]
    while waiting:
        node, x, row = waiting.pop()
        yield node, x, row, node.count * scale
        if row + 1 < _MAX_ROWS:
            for child in sorted(node.children.values(), key=lambda each: (-each.count, each.name)):
                if child.count * scale >= _LEAST:
                    waiting.append((child, x, row + 1))
                    x += child.count * scale


def _drawn(node: Node, x: float, row: int, width: float, total: int, shown: Callable[[int], str]) -> str:
    about = f"{node.name}: {shown(node.count)}, {100 * node.count / total:.1f} %"
    letters = int((width - 4) / _LETTER)
    text = node.name if len(node.name) <= letters else node.name[: letters - 1] + "…" if letters > 3 else ""
    label = f'<text x="{x + 2:.1f}" y="{row * _ROW + 13}" fill="#1a1208">{escape(text)}</text>' if text else ""
    return (
        f"<g><title>{escape(about)}</title>"
        f'<rect x="{x:.1f}" y="{row * _ROW}" width="{max(width - 0.4, 0.2):.1f}" height="{_ROW - 1}" '
        f'fill="{_colour(node.name)}"/>{label}</g>'
    )


def _colour(name: str) -> str:
    """Warm, and the same for the same function, whatever its line."""
    mixed = zlib.crc32(name.partition(":")[0].encode())
    return f"hsl({18 + mixed % 34},{62 + mixed // 64 % 24}%,{62 + mixed // 4096 % 12}%)"
