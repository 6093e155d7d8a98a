"""What is said when py-spy cannot do its work."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from shoal_common import py_spy
from shoal_common.errors import PreconditionFailed


def test_where_it_is_missing_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PreconditionFailed, match="pip install py-spy"):
        py_spy.dump(1, native=False)


def test_a_refusal_says_what_it_needs() -> None:
    refused = "Error: Permission Denied: Try running again with elevated permissions by going 'sudo env ...'\n"
    assert "cap-add SYS_PTRACE" in py_spy.failure(7, refused)
    gone = py_spy.failure(7, "Error: Failed to get process executable name.\n  reason: No such process\n")
    assert "No such process" in gone and "SYS_PTRACE" not in gone
    foreign = "Error: Failed to find python version from target process\n\nStack backtrace:\n   0: main\n"
    assert "process 7 runs no Python" in py_spy.failure(7, foreign)
    traced = "Error: It failed.\n\nCaused by:\n    1: Out of memory\n\nStack backtrace:\n  10: main\n"
    assert py_spy.failure(7, traced) == "py-spy cannot look into process 7: Out of memory"
    assert "does not say why" in py_spy.failure(7, "")
