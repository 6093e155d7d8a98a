from __future__ import annotations

import pytest

from shoal_common.logs.origins import MARK, Origin, mark, origin_of


@pytest.mark.parametrize(
    "origin",
    [
        Origin(),
        Origin("ab" * 20, 2, "", "train"),
        Origin("ab" * 20, 0, "cd" * 16, "Model.fit"),
        Origin(name="a:b:c:d"),
    ],
)
def test_what_a_worker_says_is_read_again(origin: Origin) -> None:
    line = mark(origin)
    assert line.startswith(MARK) and "\n" not in line
    assert origin_of(line.removeprefix(MARK)) == origin


@pytest.mark.parametrize("text", ["", "g", "a:b:c", "a:x:c:d", ":-1::n"])
def test_a_line_that_somebody_else_has_made_up_is_a_name(text: str) -> None:
    assert origin_of(text) == Origin(name=text)
