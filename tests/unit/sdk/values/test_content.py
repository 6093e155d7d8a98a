"""Addresses of calls by their content: the same for the same, another one for whatever does something else."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import subprocess
import sys
import textwrap
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shoal._core.object_ref import ObjectRef
from shoal._values import own_modules
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


FILES = {
    "single": "from pack.deep import depth\nPLACE = 1\ndef fun(x): return x + PLACE\n",
    "pack/__init__": "",
    "pack/inner": "from . import deep\ndef go(x): return deep.depth(x)\n",
    "pack/deep": "def depth(x): return x\n",
    "unused": "",
}
USES = {
    "an import inside": "def f(x):\n    import single\n    return single.fun(x)",
    "of a name": "def f(x):\n    from pack.inner import go\n    return go(x)",
    "of a module in a package": "def f(x):\n    from pack import inner as it\n    return it.go(x)",
    "in a function inside": "def f(x):\n    def g():\n        import pack.inner\n    return g",
    "in a method": "class C:\n    def m(self):\n        import pack.inner\ndef f(x): return C().m()",
    "dotted": "import pack.inner\ndef f(x): return pack.inner.go(x)",
    "dotted, closed over": "def make():\n    import pack.inner\n    return lambda x: pack.inner.go(x)\nf = make()",
    "getattr": "import single\ndef f(x): return getattr(single, 'fun')(x)",
    "in a list": "import single\nALL = [single]\ndef f(x): return ALL[0].fun(x)",
}


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The address of a program's ``f`` next to these modules, as a process that has seen nothing finds it."""
    places = (tmp_path / str(number) for number in itertools.count())

    def write(text: str, old: str = "", new: str = "") -> str:
        directory = next(places)
        for name, source in FILES.items():
            file = directory / f"{name}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(source.replace(old, new) if old else source)
        with monkeypatch.context() as patch:
            patch.syspath_prepend(directory)
            own_modules._look.cache_clear()
            found = at(program(text), 1)
            for name in [name for name in sys.modules if name.partition(".")[0] in ("single", "pack")]:
                del sys.modules[name]
        own_modules._look.cache_clear()
        return found

    return write


@pytest.mark.parametrize("text", USES.values(), ids=USES)
def test_an_edit_of_a_module_of_ones_own(written: Callable[..., str], text: str) -> None:
    before = written(text)
    assert before == written(text), "where it stands does not count"
    assert before == written(text, "def depth", "# moved\n\ndef depth"), "nor its line, or a comment"
    assert before != written(text, "return x\n", "return 2 * x\n"), "what is imported by what is imported counts"


def test_what_a_module_does_not_import_does_not_count(written: Callable[..., str]) -> None:
    text = USES["dotted"]
    assert written(text) == written(text, "PLACE = 1", "PLACE = 2")


def test_a_module_that_has_travelled() -> None:
    def using(value: int) -> Callable[..., Any]:
        module = types.ModuleType("elsewhere")
        vars(module).update(VALUE=value, again=module)
        function = program("def f(x): return getattr(elsewhere, 'VALUE')")
        function.__globals__["elsewhere"] = module
        return function

    assert at(using(1), 1) == at(using(1), 1) != at(using(2), 1)


def test_attributes_of_functions_count() -> None:
    text = "def g(): ...\ng.mode = 'a'\ng.itself = g\ndef f(x): return g.mode"
    assert at(program(text), 1) == at(program(text), 1) != at(program(text.replace("'a'", "'b'")), 1)


def test_another_process_finds_the_same() -> None:
    """Hashes of strings differ there, and so do identities."""
    code = f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
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
