"""Functions and classes on their way into the function table."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any

from shoal._serialization import dumps_function
from shoal_common.frames import SchedulingClass
from shoal_common.resources import ResourceSet

if TYPE_CHECKING:
    from shoal._runtime.core_worker import CoreWorker

#: Ray's limits for a pickled function or class.
WARN_BYTES = 10 * 1024 * 1024
MAX_BYTES = 100 * 1024 * 1024


def new_function_id(core: CoreWorker) -> bytes:
    """Chosen before the function is pickled, so that a recursive remote function can name itself."""
    return core.job_id + os.urandom(16)


def export(core: CoreWorker, function_id: bytes, function: Any, name: str) -> None:
    """Put a function or class into the function table.

    Raises: TypeError (cannot be pickled), ValueError (over 100 MiB).
    """
    from shoal_proto.v1 import gcs_pb2

    data, references = dumps_function(function)
    kind = "actor class" if isinstance(function, type) else "remote function"
    if len(data) > MAX_BYTES:
        raise ValueError(
            f"The {kind} {name} is too large ({len(data) >> 20} MiB > {MAX_BYTES >> 20} MiB). Check that its "
            "definition is not implicitly capturing a large array or other object in scope. Tip: use shoal.put() to "
            "put large objects in the Shoal object store."
        )
    if len(data) > WARN_BYTES:
        warnings.warn(
            f"The {kind} {name} is very large ({len(data) >> 20} MiB). Check that its definition is not implicitly "
            "capturing a large array or other object in scope. Tip: use shoal.put() to put large objects in the "
            "Shoal object store.",
            UserWarning,
            stacklevel=4,
        )
    core.pin_for_ever(references)
    core.gcs.call(
        "Function",
        "PutFunction",
        gcs_pb2.PutFunctionRequest(job_id=core.job_id, function_id=function_id, data=data),
    )


def scheduling_class(resources: dict[str, float], strategy: Any) -> SchedulingClass:
    """Nameless: worker leases are shared by all functions that need the same, as every worker of a job can run
    them all. (Ray's classes hold the function too; then two functions in turn pass each other's leases to and fro.)"""
    amounts = tuple(sorted(ResourceSet.of(resources).grains.items()))
    return SchedulingClass(name="", resources=amounts, strategy=encode_strategy(strategy))


def encode_strategy(strategy: Any) -> str:
    """As documented at SchedulingClass.strategy. Raises: ValueError for one that is not supported."""
    if strategy is None or strategy == "DEFAULT":
        return ""
    if isinstance(strategy, str):
        return strategy
    node_id = getattr(strategy, "node_id", None)
    if node_id is not None:
        return f"node{'?' if strategy.soft else ''}:{node_id}"
    raise ValueError(
        f"{type(strategy).__name__} is not supported yet: use 'DEFAULT', 'SPREAD' or NodeAffinitySchedulingStrategy"
    )
