"""Submodules of ``ray``: those of Shoal under Ray's names, and what libraries touch inside of Ray."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from ray._absence import absent, absent_module
from ray._inside import INSIDE

#: What Shoal's processes run: no modules of its API.
_PROGRAMS = {"cli", "worker", "worker_template"}


class ModulesOfRay(MetaPathFinder, Loader):
    """Finds and loads ``ray.…``."""

    def has(self, name: str) -> bool:
        """``name``: with "ray." in front."""
        if name in INSIDE or name.rpartition(".")[0] in INSIDE:
            return name in INSIDE
        return _is_public(name) and importlib.util.find_spec(_of_shoal(name)) is not None

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Raises: ModuleNotFoundError for what Shoal has not; of Ray's modules nobody else has them."""
        if not fullname.startswith("ray."):
            return None
        if not self.has(fullname):
            raise absent_module(fullname)
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return _Inside(spec.name) if spec.name in INSIDE else None

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        if name in INSIDE:
            vars(module).update(INSIDE[name])
        else:
            # What stands here in the end is what was imported. Were it the module created, as loaders usually have it,
            # its __spec__ and so its name in pickles would be changed.
            sys.modules[name] = importlib.import_module(_of_shoal(name))


class _Inside(ModuleType):
    """One of Ray's private modules, with the little that libraries touch of it."""

    def __getattr__(self, name: str) -> Any:
        if f"{self.__name__}.{name}" in INSIDE:
            return importlib.import_module(f"{self.__name__}.{name}")
        raise absent(self.__name__, f"module {self.__name__!r} has no attribute {name!r}")


def _of_shoal(name: str) -> str:
    return "shoal" + name.removeprefix("ray")


def _is_public(name: str) -> bool:
    parts = name.split(".")[1:]
    return parts[0] not in _PROGRAMS and not any(part.startswith("_") for part in parts)
