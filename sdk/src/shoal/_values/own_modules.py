"""Modules of one's own: those that are not installed. What they are, and import, is found without importing them.

What a process has loaded does not change with the file any more, so a module is looked at once in a process.
"""

from __future__ import annotations

import dis
import functools
import importlib.util
import sys
import sysconfig
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

#: Installed, wherever its files are.
_OURS = ("shoal", "shoal_common", "shoal_proto", "ray")
_INSTALLED = tuple({f"{sysconfig.get_path(name)}/" for name in ("stdlib", "platstdlib", "purelib", "platlib")})
#: So many are remembered.
MAX_MODULES = 10_000
_IMPORT_NAME = dis.opmap["IMPORT_NAME"]


@dataclass(frozen=True, slots=True)
class Module:
    name: str
    #: None = it has none: a directory, or compiled.
    code: types.CodeType | None
    #: Of what is compiled.
    data: bytes
    #: Names of what may be modules: `from a import b` may import a.b.
    imports: tuple[str, ...]
    #: Of its package; only of what is installed, of which nothing else counts.
    version: str | None = None


def is_installed(module: str) -> bool:
    """Of a module that is loaded."""
    if module.partition(".")[0] in _OURS:
        return True
    found = sys.modules.get(module)
    if found is None or module == "__main__":
        return False  # it travels by value
    return _is_place_of_installed(getattr(found, "__file__", None) or next(iter(getattr(found, "__path__", ())), None))


def reachable(names: Iterable[str]) -> list[Module]:
    """The modules that are loaded where these are imported, sorted by name. Those that are not found are left out, and
    so is what installed ones import."""
    found: dict[str, Module | None] = {}
    waiting = list(names)
    while waiting:
        parts = waiting.pop().split(".")
        for end in range(1, len(parts) + 1):
            name = ".".join(parts[:end])
            if name not in found:
                module = found[name] = _look(name)
                if module is not None:
                    waiting.extend(module.imports)
    return sorted((module for module in found.values() if module is not None), key=lambda module: module.name)


@functools.lru_cache(MAX_MODULES)
def imported(code: types.CodeType, package: str | None) -> tuple[str, ...]:
    """Names of what may be modules, by the `import` statements in ``code`` and in functions inside of it."""
    return tuple(_imported(code, package))


def _imported(code: types.CodeType, package: str | None) -> Iterator[str]:
    if _IMPORT_NAME in code.co_code[::2]:
        before: list[Any] = [0, None]  # how many packages up, and which names
        for step in dis.get_instructions(code):
            if step.opcode == _IMPORT_NAME:
                level, names = before
                try:
                    module = importlib.util.resolve_name("." * (level or 0) + step.argval, package)
                except ImportError:
                    continue  # it will be told when it runs
                yield module
                yield from (f"{module}.{name}" for name in names or () if name != "*")
            elif step.opcode != dis.EXTENDED_ARG:
                before = [before[1], step.argval]
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from _imported(const, package)


@functools.lru_cache(MAX_MODULES)
def _look(name: str) -> Module | None:
    top = name.partition(".")[0]
    if top in _OURS or top in sys.stdlib_module_names:
        return None
    spec = _find(name)
    if spec is None:
        return None
    place = spec.origin if spec.has_location else next(iter(spec.submodule_search_locations or ()), None)
    if _is_place_of_installed(place):
        return Module(top, None, b"", (), _version(top))
    get_code = getattr(spec.loader, "get_code", None)
    try:
        code = get_code(name) if get_code is not None else None
    except (ImportError, SyntaxError, OSError):
        return Module(name, None, b"it cannot be imported", ())
    if code is None:
        return Module(name, None, Path(spec.origin).read_bytes() if spec.has_location and spec.origin else b"", ())
    return Module(name, code, b"", imported(code, name if spec.submodule_search_locations else spec.parent))


def _find(name: str) -> ModuleSpec | None:
    """Without importing the packages that it is in."""
    loaded = sys.modules.get(name)
    if loaded is not None:
        return getattr(loaded, "__spec__", None)
    parent = name.rpartition(".")[0]
    if not parent:
        return importlib.util.find_spec(name)
    above = _find(parent)
    if above is None or above.submodule_search_locations is None:
        return None
    return PathFinder.find_spec(name, above.submodule_search_locations)


def _is_place_of_installed(place: str | None) -> bool:
    return place is None or "-packages" in place or place.startswith(_INSTALLED)


@functools.lru_cache(MAX_MODULES)
def _version(package: str) -> str:
    """Whether it is loaded or not."""
    import importlib.metadata  # it is large, and few programs come here

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
