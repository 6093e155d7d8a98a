from __future__ import annotations

import os

import pytest

from shoal_raylet.arena.arena import Arena


def test_closing_while_a_cancelled_call_still_has_a_view() -> None:
    """As of a spill that the end of the raylet has cut off: it was an error, and a node that should have joined anew
    ended."""
    arena = Arena(1)
    arena.view[:4] = b"sent"
    view = arena.view[:4]
    fd = arena.fd
    arena.close()
    assert bytes(view) == b"sent", "what has the view may still look at it"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
