from __future__ import annotations

import threading
import zipfile
from pathlib import Path

import pytest

from shoal_raylet.workers.environments.archives import unpack, without_top
from shoal_raylet.workers.environments.cache import Attempt, SetupFailed

ATTEMPT = Attempt(-1.0, threading.Event())


def archive(tmp_path: Path, files: dict[str, str]) -> Path:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, text in files.items():
            zipped.writestr(name, text)
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "target"
    path.mkdir()
    return path


def test_what_is_in_it(tmp_path: Path, target: Path) -> None:
    unpack(archive(tmp_path, {"a.py": "1", "b/c.txt": "2", "empty/": ""}), target, ATTEMPT)
    assert (target / "a.py").read_text() == "1" and (target / "b" / "c.txt").read_text() == "2"
    assert (target / "empty").is_dir()


def test_programs_can_be_run(tmp_path: Path, target: Path) -> None:
    info = zipfile.ZipInfo("run.sh")
    info.external_attr = 0o755 << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as zipped:
        zipped.writestr(info, "#!/bin/sh")
    unpack(tmp_path / "x.zip", target, ATTEMPT)
    assert (target / "run.sh").stat().st_mode & 0o100


@pytest.mark.parametrize("name", ["../out", "a/../../out", "/etc/out", "a\\..\\out"])
def test_nothing_lands_outside(tmp_path: Path, target: Path, name: str) -> None:
    with pytest.raises(SetupFailed, match="would land outside"):
        unpack(archive(tmp_path, {name: "x"}), target, ATTEMPT)
    assert list(target.rglob("out")) == []


def test_a_bomb(tmp_path: Path, target: Path) -> None:
    bomb = archive(tmp_path, {"small": "x", "large": "0" * 1_000_000})
    assert bomb.stat().st_size < 10_000
    with pytest.raises(SetupFailed, match="unpacks to more than 500000 bytes, at large"):
        unpack(bomb, target, ATTEMPT, max_bytes=500_000)
    assert sum(path.stat().st_size for path in target.iterdir()) <= 500_000


def test_what_is_no_archive(tmp_path: Path, target: Path) -> None:
    (tmp_path / "x.zip").write_text("no")
    with pytest.raises(SetupFailed, match="no zip archive"):
        unpack(tmp_path / "x.zip", target, ATTEMPT)


def test_the_one_directory_at_the_top(tmp_path: Path) -> None:
    (tmp_path / "repository-main").mkdir()
    assert without_top(tmp_path) == tmp_path / "repository-main"
    (tmp_path / "other").touch()
    assert without_top(tmp_path) == tmp_path
