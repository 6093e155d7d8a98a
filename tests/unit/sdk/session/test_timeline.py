from __future__ import annotations

import os
from typing import Any

import pytest

from shoal._session.timeline import timeline


@pytest.mark.parametrize("filename", [5, True, b"trace.json", ["trace.json"]])
def test_a_file_is_named_by_a_path_not_by_a_descriptor(filename: Any) -> None:
    with pytest.raises(TypeError, match="filename must be a path or None, not"):
        timeline(filename)


def test_a_descriptor_stays_open() -> None:
    reader, writer = os.pipe()
    try:
        with pytest.raises(TypeError):
            timeline(writer)  # type: ignore[arg-type]
        os.fstat(writer)
    finally:
        os.close(reader)
        os.close(writer)
