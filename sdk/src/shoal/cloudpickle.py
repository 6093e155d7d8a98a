"""The names of cloudpickle, which pickles what is sent: ``import shoal.cloudpickle as pickle``."""

from __future__ import annotations

from pickle import PicklingError

from cloudpickle import (
    CloudPickler,
    Pickler,
    __version__,
    dump,
    dumps,
    load,
    loads,
    register_pickle_by_value,
    unregister_pickle_by_value,
)
from cloudpickle.cloudpickle import DEFAULT_PROTOCOL, list_registry_pickle_by_value

__all__ = [
    "DEFAULT_PROTOCOL",
    "CloudPickler",
    "Pickler",
    "PicklingError",
    "__version__",
    "dump",
    "dumps",
    "list_registry_pickle_by_value",
    "load",
    "loads",
    "register_pickle_by_value",
    "unregister_pickle_by_value",
]
