from __future__ import annotations

import pickle
from typing import Any

import pytest

from shoal._values.text import require_unicode

BAD = "file-\udcff.txt"


@pytest.mark.parametrize("value", ["", "é", "😀", 1, None, b"\xff", ["a", {"b": ("c",)}]])
def test_what_can_be_encoded_passes(value: Any) -> None:
    require_unicode("a name", value)


@pytest.mark.parametrize("value", [BAD, [BAD], ("a", [BAD]), {BAD: 1}, {"a": {"b": BAD}}])
def test_what_cannot_be_encoded_is_named(value: Any) -> None:
    with pytest.raises(UnicodeEncodeError, match="the name of a task must be valid Unicode") as refused:
        require_unicode("the name of a task", value)
    assert refused.value.object == BAD
    assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)
