from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shoal._launch import directories
from shoal._launch.directories import MAX_ROOT_BYTES, new_session_directory, root_directory

OWN = f"shoal-{os.getuid()}"
LONG = "/tmp/" + "x" * MAX_ROOT_BYTES
NOT_UTF8 = os.fsdecode(b"/tmp/\xff")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A directory with a name that is short enough, and an environment that names none."""
    for name in ("SHOAL_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    with tempfile.TemporaryDirectory(prefix="st-", dir="/tmp") as directory:
        yield directory


def test_the_argument_comes_before_the_variables(short: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", f"{short}/t")
    assert root_directory() == Path(short, "t", OWN)
    monkeypatch.setenv("SHOAL_TMPDIR", f"{short}/s")
    assert root_directory() == Path(short, "s", OWN)
    assert root_directory(f"{short}/a") == Path(short, "a")
    assert Path(short, "a").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("unusable", ["here", ".", LONG, NOT_UTF8])
def test_a_directory_that_was_named_and_will_not_do_is_refused(
    short: str, unusable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = "(absolute path|at most 40 bytes|UTF-8)"
    with pytest.raises(ValueError, match=f"_temp_dir must .*{reason}"):
        root_directory(unusable)
    monkeypatch.setenv("SHOAL_TMPDIR", unusable)
    with pytest.raises(ValueError, match=f"SHOAL_TMPDIR must .*{reason}"):
        root_directory()


@pytest.mark.parametrize("unusable", [None, "", "here", LONG, NOT_UTF8])
@pytest.mark.usefixtures("short")
def test_a_directory_that_all_programs_use_need_not_do_and_that_is_said_once(
    unusable: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if unusable is not None:
        monkeypatch.setenv("TMPDIR", unusable)
    directories._say_once.cache_clear()
    for _ in range(2):
        assert root_directory() == Path("/tmp", OWN)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == bool(unusable)
    assert all(f"Files are in /tmp/{OWN} instead" in each for each in said)


def test_what_a_dead_driver_left_is_removed(short: str) -> None:
    mine = new_session_directory(short)
    dead = Path(short, "session_20260101-000000_999999999_abcdef")
    dead.mkdir()
    assert new_session_directory(short).parent == mine.parent == Path(short)
    assert mine.exists() and not dead.exists()


def test_what_a_dead_dashboard_left_is_removed_by_the_next_and_by_stop(short: str) -> None:
    def left() -> Path:
        dead = Path(directories.root_directory(), "dashboard_20260101-000000_999999999_abcdef")
        dead.mkdir()
        return dead

    dead = left()
    mine = directories.new_dashboard_directory()
    assert mine.exists() and not dead.exists()
    dead = left()
    directories.remove_dead_dashboards()
    assert mine.exists() and not dead.exists()
    mine.rmdir()
