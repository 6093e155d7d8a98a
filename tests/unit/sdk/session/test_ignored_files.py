from __future__ import annotations

import pytest

from shoal._session.ignored_files import IgnoredFiles


@pytest.mark.parametrize(
    ("pattern", "left_out", "kept"),
    [
        ("*.log", ["a.log", "x/y/b.log"], ["a.logs", "log"]),
        ("/top.txt", ["top.txt"], ["x/top.txt"]),
        ("a/b", ["a/b"], ["x/a/b", "a/b/c"]),
        ("**/b", ["b", "a/b", "x/a/b"], ["bb"]),
        ("a/**", ["a/b", "a/b/c"], ["a"]),
        ("a/**/z", ["a/z", "a/b/z", "a/b/c/z"], ["z", "a/zz"]),
        ("f?o", ["foo", "x/fzo"], ["fo", "f/o"]),
        ("[ab].py", ["a.py", "b.py"], ["c.py"]),
        ("[!ab].py", ["c.py"], ["a.py"]),
        ("\\!important", ["!important"], ["important"]),
        ("\\#x", ["#x"], ["x"]),
        ("a.b", ["a.b"], ["axb"]),
        ("trailing   ", ["trailing"], ["trailing   "]),
    ],
)
def test_patterns(pattern: str, left_out: list[str], kept: list[str]) -> None:
    ignored = IgnoredFiles([pattern])
    assert [path for path in left_out if not ignored.decides(path, is_directory=False)] == []
    assert [path for path in kept if ignored.decides(path, is_directory=False)] == []


def test_directories_only() -> None:
    ignored = IgnoredFiles(["build/\n"])
    assert ignored.decides("x/build", is_directory=True)
    assert ignored.decides("x/build", is_directory=False) is None


def test_the_last_that_matches_decides() -> None:
    ignored = IgnoredFiles(["# all but one", "", "*.bin", "!keep.bin"])
    assert ignored.decides("a.bin", is_directory=False) is True
    assert ignored.decides("x/keep.bin", is_directory=False) is False
    assert ignored.decides("a.txt", is_directory=False) is None
