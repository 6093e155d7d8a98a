"""What notebooks show."""

from __future__ import annotations

from shoal import _html


def test_everything_is_escaped() -> None:
    shown = _html.table("f(<lambda>)", [("a & b", "<script>"), ("number", 3)])
    assert "<script>" not in shown
    assert "<lambda>" not in shown
    for text in ("f(&lt;lambda&gt;)", "a &amp; b", "&lt;script&gt;", ">3<"):
        assert text in shown
