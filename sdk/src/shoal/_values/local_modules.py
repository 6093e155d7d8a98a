"""The modules next to the script, for a driver whose files the cluster does not have.

A worker imports what it has installed. What the script imports from its own directory (or, in a console, from the
current one) is nowhere in the cluster: functions and classes of such modules travel by value, as those of ``__main__``
always do.
"""

from __future__ import annotations

import contextlib
import os
import sys
import types
from pathlib import Path
from typing import Any

import cloudpickle

#: Directories whose modules travel; empty = the cluster has the driver's files.
_directories: list[Path] = []
#: Modules looked at: True = it travels.
_travelling: dict[str, bool] = {}


def send_by_value() -> None:
    """From now on, until ``stop``."""
    _directories[:] = _script_directories()


def stop() -> None:
    _directories.clear()
    for name, travels in _travelling.items():
        if travels and name in sys.modules:
            cloudpickle.unregister_pickle_by_value(sys.modules[name])
    _travelling.clear()


def notice(value: Any) -> None:
    """Called with what is about to be pickled: lets cloudpickle send the module's contents if that must be."""
    if not _directories:
        return
    name = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
    if not isinstance(name, str) or name in _travelling:
        return
    module = sys.modules.get(name)
    _travelling[name] = module is not None and name != "__main__" and _is_local(module)
    if _travelling[name]:
        cloudpickle.register_pickle_by_value(module)


def _is_local(module: types.ModuleType) -> bool:
    """Found by its name in one of the directories: so neither what is installed in an environment that lies below, nor
    what another entry of ``sys.path`` there provides."""
    file = getattr(module, "__file__", None)
    if not file:
        return False
    place = Path(os.path.abspath(file))
    stem = Path(*module.__name__.split("."))
    return any(place in ((d / stem).with_suffix(".py"), d / stem / "__init__.py") for d in _directories)


def _script_directories() -> list[Path]:
    directories = []
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if script:
        directories.append(Path(os.path.abspath(script)).parent)
    with contextlib.suppress(FileNotFoundError):  # the current directory has been deleted
        if not script or "" in sys.path or os.getcwd() in sys.path:
            directories.append(Path(os.getcwd()))
    return directories
