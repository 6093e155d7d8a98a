"""What libraries touch inside of Ray, beside its public names: tables to read, nothing that could be set in motion."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar, NoReturn

from ray._absence import PAGE
from shoal import ObjectRefGenerator
from shoal._session.session import Context
from shoal.runtime_context import SCRIPT_MODE, WORKER_MODE, ThisProcess
from shoal.util import get_node_ip_address


def from_pandas_refs(*args: object, **kwargs: object) -> NoReturn:
    """Raises: NotImplementedError."""
    raise NotImplementedError(f"ray.data.from_pandas_refs: Ray Data is not part of Shoal. {PAGE}")


@dataclass
class ExecutionResources:
    """How much Ray Data may use. dagster-ray sets it wherever it connects, used or not; nothing here reads it."""

    cpu: float | None = None
    gpu: float | None = None
    object_store_memory: float | None = None

    @classmethod
    def for_limits(
        cls, cpu: float | None = None, gpu: float | None = None, object_store_memory: float | None = None
    ) -> ExecutionResources:
        return cls(cpu, gpu, object_store_memory)


class DatasetContext:
    """The settings of Ray Data in this process, likewise."""

    _current: ClassVar[DatasetContext | None] = None

    def __init__(self) -> None:
        self.execution_options = SimpleNamespace(resource_limits=ExecutionResources())

    @classmethod
    def get_current(cls) -> DatasetContext:
        cls._current = cls._current or cls()
        return cls._current


#: Module -> its names.
INSIDE: dict[str, dict[str, Any]] = {
    "ray._private": {},
    "ray._private.services": {"get_node_ip_address": get_node_ip_address},
    "ray._private.worker": {
        "BaseContext": Context,
        "SCRIPT_MODE": SCRIPT_MODE,
        "WORKER_MODE": WORKER_MODE,
        "global_worker": ThisProcess(),
    },
    # Ray's own examples import it from there
    "ray._raylet": {"ObjectRefGenerator": ObjectRefGenerator},
    # modin imports the first name whatever it is used for
    "ray.data": {
        "from_pandas_refs": from_pandas_refs,
        "DatasetContext": DatasetContext,
        "ExecutionResources": ExecutionResources,
    },
}
