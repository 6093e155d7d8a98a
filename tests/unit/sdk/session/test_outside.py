from __future__ import annotations

import pickle
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from shoal._session.outside import parse_address
from shoal._values import local_modules as _local_modules
from shoal._values.serialization import serialize


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("shoal://head", [("head", 10001)]),
        ("shoal://head:7", [("head", 7)]),
        ("shoal://10.0.0.1:7/", [("10.0.0.1", 7)]),
        ("shoal://[::1]:7", [("::1", 7)]),
        ("shoal://[::1]", [("::1", 10001)]),
        ("shoal://a:7,b,[::1]:9", [("a", 7), ("b", 10001), ("::1", 9)]),
    ],
)
def test_addresses(address: str, expected: list[tuple[str, int]]) -> None:
    assert parse_address(address) == expected


@pytest.mark.parametrize(
    "address",
    [
        *("shoal://", "shoal://:1", "shoal://a:0", "shoal://a:99999", "shoal://a/b", "shoal://me@a", "shoal://a?b"),
        *("shoal://a,", "shoal://a,b:0", "shoal://a,shoal://b"),
    ],
)
def test_malformed_addresses(address: str) -> None:
    with pytest.raises(ValueError, match="shoal://host"):
        parse_address(address)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, as it is for a console."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", None, raising=False)
    yield tmp_path
    _local_modules.stop()


def make_module(file: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("")
    module = types.ModuleType(name)
    module.__file__ = str(file)
    exec("FACTOR = 2\ndef scale(x):\n    return FACTOR * x\n", module.__dict__)
    monkeypatch.setitem(sys.modules, name, module)
    return module


def travels(module: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether its function can be loaded where there is no such module."""
    pickled = serialize(module.scale).pickled
    monkeypatch.delitem(sys.modules, module.__name__)
    try:
        return bool(pickle.loads(pickled)(3) == 6)
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize(
    ("file", "name"),
    [("helpers_t.py", "helpers_t"), ("package_t/part.py", "package_t.part"), ("package_t/__init__.py", "package_t")],
)
def test_a_module_next_to_the_script_travels(
    file: str, name: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = make_module(project / file, name, monkeypatch)
    _local_modules.send_by_value()
    assert travels(module, monkeypatch)


@pytest.mark.parametrize("file", [".venv/lib/site-packages/installed_t.py", "src/installed_t.py"])
def test_what_another_entry_of_the_path_provides_does_not(
    file: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = make_module(project / file, "installed_t", monkeypatch)
    _local_modules.send_by_value()
    assert not travels(module, monkeypatch)


def test_inside_a_cluster_modules_are_named_and_not_sent(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = make_module(project / "helpers_t.py", "helpers_t", monkeypatch)
    _local_modules.send_by_value()
    serialize(module.scale)
    _local_modules.stop()
    assert not travels(module, monkeypatch)
