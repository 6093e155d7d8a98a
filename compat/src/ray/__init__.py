"""The module ``ray``, which is Shoal: its names are the very objects of ``shoal`` and its submodules the very modules,
so that types, identity and pickles are the same by either name. Refuses to stand over a real Ray.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

import shoal
from ray._absence import absent
from ray._modules import ModulesOfRay
from ray._real_ray import refuse_to_stand_over_it
from shoal import *  # noqa: F403
from shoal import __all__ as __all__
from shoal._version import RAY_VERSION
from shoal.runtime_context import SCRIPT_MODE as SCRIPT_MODE
from shoal.runtime_context import WORKER_MODE as WORKER_MODE

refuse_to_stand_over_it(sys.path)

__version__ = RAY_VERSION

_modules = ModulesOfRay()
sys.meta_path.insert(0, _modules)  # the ordinary finder would load the files of Shoal's packages a second time

if not TYPE_CHECKING:  # a type checker would take every name for one of the module's

    def __getattr__(name: str) -> Any:
        try:
            return getattr(shoal, name)
        except AttributeError as error:
            lacks = str(error)
        if _modules.has(f"ray.{name}"):
            return importlib.import_module(f"ray.{name}")
        raise absent("ray", lacks)
