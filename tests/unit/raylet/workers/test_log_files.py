from __future__ import annotations

from pathlib import Path

import pytest

from shoal_common.logs.origins import Origin, mark
from shoal_raylet.workers import log_files
from shoal_raylet.workers.log_files import LogFiles, older

ONE, TWO = Origin("aa" * 20, name="one"), Origin("bb" * 20, name="two")


def test_a_file_says_whose_lines_follow_once_and_is_made_with_the_first_of_them(tmp_path: Path) -> None:
    file = LogFiles(tmp_path).new("worker.out")
    file.begin(ONE)
    assert not list(tmp_path.iterdir())
    file.write(["1", "2"], ended=True)
    file.begin(TWO)
    file.begin(ONE)
    file.write(["half"], ended=False)
    file.begin(TWO)
    file.write(["3"], ended=True)
    lines = (tmp_path / "worker.out").read_text().split("\n")
    assert lines == [mark(ONE), "1", "2", mark(ONE), "half", mark(TWO), "3", ""]


def test_a_file_that_is_rotated_says_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_files, "ROTATE_BYTES", 100)
    file = LogFiles(tmp_path).new("worker.out")
    file.begin(ONE)
    for line in ("x" * 100, "y"):
        file.write([line], ended=True)
    path = tmp_path / "worker.out"
    assert older(path).read_text().splitlines() == [mark(ONE), "x" * 100]
    assert path.read_text().splitlines() == [mark(ONE), "y"]


def test_of_ended_workers_the_newest_files_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_files, "MAX_ENDED_FILES", 3)
    monkeypatch.setattr(log_files, "MAX_ENDED_BYTES", 30)
    files = LogFiles(tmp_path)
    runs_on = files.new("w.out")
    runs_on.write(["-" * 50], ended=True)

    def end(name: str, size: int) -> list[str]:
        file = files.new(name)
        if size:
            file.write(["x" * (size - 1)], ended=True)
        files.ended(file)
        return sorted(path.name for path in tmp_path.iterdir())

    for name in ("a", "silent", "b", "c"):
        end(name, 0 if name == "silent" else 5)
    assert end("d", 5) == ["b", "c", "d", "w.out"], "three files"
    assert end("e", 25) == ["d", "e", "w.out"], "thirty bytes"
