from __future__ import annotations

import threading
from pathlib import Path

import pytest

from shoal_raylet.workers.environments.cache import Attempt, EnvironmentCache, SetupFailed, environment_directory

ATTEMPT = Attempt(-1.0, threading.Event())


def fill(place: Path, size: int = 1) -> None:
    (place / "file").write_bytes(b"x" * size)


def test_it_is_made_once(tmp_path: Path) -> None:
    cache, made = EnvironmentCache(tmp_path / "cache"), []

    def make(place: Path) -> None:
        made.append(place)
        fill(place)

    entries = [cache.entry("a", make, ATTEMPT), EnvironmentCache(tmp_path / "cache").entry("a", make, ATTEMPT)]
    assert len(made) == 1 and {entry.path for entry in entries} == {tmp_path / "cache" / "a"}
    assert (entries[0].path / "file").read_bytes() == b"x"


def test_threads_that_want_the_same_wait_for_one_of_them(tmp_path: Path) -> None:
    cache, made, begun, may_end = EnvironmentCache(tmp_path), [], threading.Event(), threading.Event()

    def make(place: Path) -> None:
        made.append(place)
        begun.set()
        assert may_end.wait(60)

    threads = [threading.Thread(target=lambda: cache.entry("a", make, ATTEMPT).close()) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert begun.wait(60)
    may_end.set()
    for thread in threads:
        thread.join(60)
    assert len(made) == 1


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(place: Path) -> None:
        fill(place)
        raise SetupFailed("no such package")

    with pytest.raises(SetupFailed, match="no such package"):
        EnvironmentCache(tmp_path).entry("a", fail, ATTEMPT)
    assert list(tmp_path.iterdir()) == []


def test_room_is_made_of_what_nobody_uses(tmp_path: Path) -> None:
    cache = EnvironmentCache(tmp_path, max_bytes=25)
    used = cache.entry("used", lambda place: fill(place, 10), ATTEMPT)
    for name in ("old", "new"):
        cache.entry(name, lambda place: fill(place, 10), ATTEMPT).close()
    assert {path.name for path in tmp_path.iterdir()} == {"used", "used.lock", "new", "new.lock"}
    used.close()
    cache.entry("last", lambda place: fill(place, 10), ATTEMPT).close()
    assert {path.name for path in tmp_path.glob("*.lock")} == {"new.lock", "last.lock"}


def test_who_waits_too_long_is_told(tmp_path: Path) -> None:
    with pytest.raises(SetupFailed, match=r"not done in 0 s: config=\{'setup_timeout_seconds'"):
        Attempt(0.0, threading.Event()).left()
    stopping = threading.Event()
    stopping.set()
    with pytest.raises(SetupFailed, match="the node stops"):
        Attempt(-1.0, stopping).left()


def test_sessions_share_a_place(tmp_path: Path) -> None:
    session = tmp_path / "session"
    session.mkdir()
    assert environment_directory(session) == tmp_path / "environments"


def test_what_remembers_its_place_is_made_there(tmp_path: Path) -> None:
    cache = EnvironmentCache(tmp_path)

    def fail(place: Path) -> None:
        assert place == tmp_path / "a"
        fill(place)
        raise SetupFailed("no such package")

    with pytest.raises(SetupFailed, match="no such package"):
        cache.entry("a", fail, ATTEMPT, in_place=True)
    entry = cache.entry("a", lambda place: fill(place, 3), ATTEMPT, in_place=True)
    assert (entry.path / "file").read_bytes() == b"xxx"
    assert cache.entry("a", fail, ATTEMPT, in_place=True).path == entry.path
