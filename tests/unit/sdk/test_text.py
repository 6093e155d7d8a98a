from __future__ import annotations

import pickle
from typing import Any

import pytest

from shoal._text import MAX_TEXT_BYTES, check_text

BAD = "file-\udcff.txt"


@pytest.mark.parametrize("value", ["", "é", "😀", 1, None, b"\xff", ["a", {"b": ("c",)}]])
def test_what_can_be_encoded_passes(value: Any) -> None:
    check_text("a name", value)


@pytest.mark.parametrize("value", [BAD, [BAD], ("a", [BAD]), {BAD: 1}, {"a": {"b": BAD}}])
def test_what_cannot_be_encoded_is_named(value: Any) -> None:
    with pytest.raises(UnicodeEncodeError, match="the name of a task must be valid Unicode") as refused:
        check_text("the name of a task", value)
    assert refused.value.object == BAD
    assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)


@pytest.mark.parametrize("value", ["x" * MAX_TEXT_BYTES, "é" * (MAX_TEXT_BYTES // 2)], ids=["ascii", "two bytes each"])
def test_text_that_is_too_long_is_refused_without_being_repeated(value: str) -> None:
    check_text("a name", value)
    for longer in (value + "x", [value + "x"], {value + "x": 1}):
        with pytest.raises(ValueError, match=f"a name must have at most {MAX_TEXT_BYTES} bytes") as refused:
            check_text("a name", longer)
        assert len(str(refused.value)) < 200
