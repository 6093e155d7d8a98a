"""Addresses of calls by their content: the same for the same, another one for whatever does something else."""

from __future__ import annotations

import dataclasses
import functools
import math
import subprocess
import sys
import textwrap
import threading
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from shoal._core.object_ref import ObjectRef
from shoal._values.content import CONTENT, address


def program(text: str) -> Callable[..., Any]:
    """The function ``f`` of a program."""
    module = types.ModuleType("__main__")
    exec(compile(textwrap.dedent(text), "program.py", "exec"), vars(module))
    function: Callable[..., Any] = vars(module)["f"]
    return function


def at(function: Any, *args: Any, environment: str = "", **kwargs: Any) -> str:
    return address(function, args, kwargs, environment)


BASE = """
    import math
    FACTOR = 2
    class Point:
        def __init__(self, x): self.x = x
    def helper(x):
        return x * FACTOR
    def f(x, y=1):
        return helper(x) + math.floor(y)
"""


def test_moved_code_is_the_same() -> None:
    assert at(program(BASE), 1) == at(program("\n\n# moved\n" + textwrap.dedent(BASE)), 1)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("x * FACTOR", "x + FACTOR"),
        ("FACTOR = 2", "FACTOR = 3"),
        ("y=1", "y=2"),
        ("math.floor", "math.ceil"),
        ("helper(x) +", "helper(x) -"),
    ],
)
def test_an_edit_is_another_function(before: str, after: str) -> None:
    assert before in BASE
    assert at(program(BASE), 1) != at(program(BASE.replace(before, after)), 1)


def test_what_is_not_used_does_not_count() -> None:
    assert at(program(BASE), 1) == at(program(BASE.replace("self.x = x", "self.x = 2 * x")), 1)


@dataclasses.dataclass
class Row:
    name: str
    cells: list[int]


def f(*args: Any, **kwargs: Any) -> None: ...


VALUES: list[Any] = [
    *(0, 1, True, 1.0, -0.0, 0.0, 2**70, "1", b"1", bytearray(b"1"), None, ..., 1j, math.inf),
    *([1, 2], [2, 1], (1, 2), {1, 2}, frozenset({1, 2}), {1: 2}, {2: 1}, [[1], 2], [[1, 2]], [], (), {}),
    *(Row("a", [1]), Row("a", [2]), Row("b", [1]), Row, CONTENT, ValueError("a"), ValueError("b")),
    *(np.arange(3), np.arange(3.0), np.arange(4), np.arange(4).reshape(2, 2), np.float32(1), np.float64(1)),
    *(len, math.sin, math.cos, functools.partial(int, base=2), functools.partial(int, base=8), range(3), slice(1)),
]


def test_values_are_told_apart() -> None:
    addresses = [at(f, value) for value in VALUES]
    assert len(set(addresses)) == len(VALUES)
    assert at(f, 1, 2) != at(f, (1, 2)) and at(f, x=1) != at(f, y=1) != at(f, 1)
    assert at(f, environment="a") != at(f, environment="b")


def test_equal_values_are_the_same() -> None:
    shared = [1, 2]
    assert at(f, [shared, shared]) == at(f, [[1, 2], [1, 2]])
    assert at(f, {"a", "b", "c"}) == at(f, {"c", "b", "a"})
    assert at(f, a=1, b=2) == at(f, b=2, a=1)
    assert at(f, Row("a", [1])) == at(f, Row("a", [1]))
    assert at(f, np.arange(3)) == at(f, np.array([0, 1, 2]))


def test_what_contains_itself() -> None:
    one: list[Any] = [1]
    one.append(one)
    other: list[Any] = [1]
    other.append(other)
    assert at(f, one) == at(f, other) != at(f, [1, [1]])

    class Node:
        def __init__(self) -> None:
            self.owner = self

    assert at(f, Node()) == at(f, Node())


def test_a_class_says_itself_what_counts() -> None:
    class Connection:
        def __init__(self, address: str) -> None:
            self.address, self.lock = address, threading.Lock()

        def __shoal_content__(self) -> str:
            return self.address

    assert at(f, Connection("a")) == at(f, Connection("a")) != at(f, Connection("b"))


def test_what_has_no_content_says_so() -> None:
    with pytest.raises(TypeError, match=r"_thread\.lock has no content: .* Give the call a key, or the class a method"):
        at(f, {"deep": [threading.Lock()]})
    with pytest.raises(TypeError, match="A reference inside of an argument has no content: hand it on"):
        at(f, [ObjectRef.nil()])


def test_another_process_finds_the_same() -> None:
    """Hashes of strings differ there, and so do identities."""
    code = f"""
        import sys
        sys.path.insert(0, {str(__import__("pathlib").Path(__file__).parent)!r})
        from test_content import BASE, VALUES, at, f, program
        print(at(program(BASE), {{"a", "b", "c", "d"}}), *(at(f, value) for value in VALUES))
    """
    run = [sys.executable, "-c", textwrap.dedent(code)]
    others = [
        subprocess.run(run, env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True).stdout.split()
        for seed in ("1", "2")
    ]
    assert others[0] == others[1]
    assert others[0][0] == at(program(BASE), {"a", "b", "c", "d"})
