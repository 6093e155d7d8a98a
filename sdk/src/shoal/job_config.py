"""``JobConfig``: what ``shoal.init(job_config=...)`` says of the whole job. ``LoggingConfig``: how it logs."""

from __future__ import annotations

import dataclasses
import inspect
import logging
import math
import numbers
from collections.abc import Iterable, Mapping
from typing import Any, Self

from shoal._not_implemented import refuse
from shoal._text import check_text
from shoal.runtime_env import RuntimeEnv
from shoal_common.placement.resources import GRAINS, OBJECT_STORE_MEMORY

MAX_WEIGHT = 1_000

_ENCODINGS = ("TEXT", "JSON")
#: Attributes of a log record that are not among those that are always there.
_STANDARD_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"asctime", "message"}


@dataclasses.dataclass
class LoggingConfig:
    """How the driver and all tasks and actors of a job log, by the root logger and on standard error.

    ``encoding``: "TEXT" or "JSON", a line each, with the ids of job, node, worker, task and actor. ``log_level``: name
    of the least one that is shown. ``additional_log_standard_attrs``: further attributes of Python's log records.

    Raises: ValueError for an encoding, a level or an attribute that there is not.
    """

    encoding: str = "TEXT"
    log_level: str = "INFO"
    additional_log_standard_attrs: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        if self.encoding not in _ENCODINGS:
            raise ValueError(f"Invalid encoding type: {self.encoding}. Valid encoding types are: {list(_ENCODINGS)}")
        if self.log_level not in logging.getLevelNamesMapping():
            raise ValueError(
                f"Invalid log level: {self.log_level}. Valid levels are: {list(logging.getLevelNamesMapping())}"
            )
        for attribute in self.additional_log_standard_attrs:
            if attribute not in _STANDARD_ATTRIBUTES:
                raise ValueError(
                    f"Unknown python logging standard attribute: {attribute}. The valid attributes are: "
                    f"{sorted(_STANDARD_ATTRIBUTES)}"
                )


class JobConfig:
    """``ray_namespace``: of its named actors (None = one of its own). ``default_actor_lifetime``: "non_detached" or
    "detached". ``metadata``: free text by key, kept with the job. ``code_search_path``: directories that workers
    add to ``sys.path``. ``runtime_env``: of all its tasks and actors, not of the driver. ``weight``: of two jobs that
    keep the same nodes busy, one of weight 2 gets twice as much of them as one of weight 1 (more than 0, at most 1,000;
    default 1). ``max_resources``: what it may hold at once over the whole cluster, as {"CPU": 8, "GPU": 1}: tasks,
    actors and placement groups together; what is over waits (0 = nothing of that; what is not named has no limit).
    ``py_logging_config``: how its tasks, its actors and the driver log. ``enable_task_events``: False =
    what happens to its tasks is not recorded, whatever their options say.

    Raises: TypeError (code_search_path is no list of strings, metadata that is no strings by strings, max_resources no
    numbers by names, enable_task_events no bool), ValueError (unknown lifetime, a weight or an amount out of range, an
    empty namespace; ``jvm_options``, which is not implemented), AttributeError (an attribute is set that there is not),
    and as ``RuntimeEnv``.
    """

    # A misspelt attribute is an error, where it would be set and do nothing.
    __slots__ = (
        "_enable_task_events",
        "_max_resources",
        "_weight",
        "code_search_path",
        "default_actor_lifetime",
        "jvm_options",
        "metadata",
        "py_logging_config",
        "ray_namespace",
        "runtime_env",
    )

    def __init__(
        self,
        jvm_options: list[str] | None = None,
        code_search_path: list[str] | None = None,
        runtime_env: Mapping[str, Any] | None = None,
        metadata: dict[str, str] | None = None,
        ray_namespace: str | None = None,
        default_actor_lifetime: str = "non_detached",
        weight: float = 1.0,
        max_resources: Mapping[str, float] | None = None,
        py_logging_config: LoggingConfig | None = None,
        enable_task_events: bool = True,
    ) -> None:
        if not isinstance(code_search_path or [], (list, tuple)) or not _all_texts(code_search_path or ()):
            raise TypeError(f"The type of code search path is incorrect: {type(code_search_path)}")
        refuse("jvm_options", jvm_options, (None, []), "there are no Java workers")
        self.jvm_options = jvm_options or []
        self.code_search_path = list(code_search_path or [])
        if not isinstance(metadata or {}, Mapping):
            raise TypeError(f"The metadata of a job must be a dictionary of strings, not {type(metadata).__name__}")
        self.metadata: dict[str, str] = {}
        for key, value in (metadata or {}).items():
            self.set_metadata(key, value)
        self.set_ray_namespace(ray_namespace)
        self.set_runtime_env(runtime_env)
        self.set_default_actor_lifetime(default_actor_lifetime)
        self.weight = weight
        self.max_resources = max_resources
        self.set_py_logging_config(py_logging_config)
        self.enable_task_events = enable_task_events

    # Of these Ray has no setters: they are attributes, which are checked when they are set, too.

    @property
    def weight(self) -> float:
        return self._weight

    @weight.setter
    def weight(self, weight: float) -> None:
        if not isinstance(weight, int | float) or not 0 < weight <= MAX_WEIGHT:
            raise ValueError(f"The weight of a job must be a number above 0, at most {MAX_WEIGHT:,}, not {weight!r}")
        self._weight = float(weight)

    @property
    def max_resources(self) -> dict[str, float] | None:
        return self._max_resources

    @max_resources.setter
    def max_resources(self, max_resources: Mapping[str, float] | None) -> None:
        self._max_resources = _amounts(max_resources)

    @property
    def enable_task_events(self) -> bool:
        return self._enable_task_events

    @enable_task_events.setter
    def enable_task_events(self, enable_task_events: bool) -> None:
        if not isinstance(enable_task_events, bool):
            raise TypeError(f"enable_task_events must be True or False, not {enable_task_events!r}")
        self._enable_task_events = enable_task_events

    def set_py_logging_config(self, logging_config: LoggingConfig | None) -> None:
        """Raises: TypeError."""
        if logging_config is not None and not isinstance(logging_config, LoggingConfig):
            raise TypeError(f"logging_config must be a shoal.LoggingConfig, not {type(logging_config).__name__}")
        self.py_logging_config = logging_config

    def set_metadata(self, key: str, value: str) -> None:
        """An earlier value of the key is replaced. Raises: TypeError, UnicodeEncodeError, ValueError (too long)."""
        if not _all_texts((key, value)):
            raise TypeError(f"The metadata of a job must be strings by strings, not {value!r} by {key!r}")
        check_text("the metadata of a job", {key: value})
        self.metadata[key] = value

    def set_ray_namespace(self, ray_namespace: str | None) -> None:
        """Raises: TypeError, ValueError (empty), UnicodeEncodeError."""
        if ray_namespace is not None and not isinstance(ray_namespace, str):
            raise TypeError(f"ray_namespace must be None or a str, not {type(ray_namespace).__name__}")
        if ray_namespace == "":
            raise ValueError('"" is not a valid namespace. Pass None to not specify a namespace.')
        check_text("a namespace", ray_namespace)
        self.ray_namespace = ray_namespace

    def set_runtime_env(self, runtime_env: Mapping[str, Any] | None) -> None:
        """Raises: TypeError, ValueError."""
        self.runtime_env = RuntimeEnv(**(runtime_env or {}))

    def set_default_actor_lifetime(self, default_actor_lifetime: str) -> None:
        """Raises: ValueError."""
        if default_actor_lifetime not in ("detached", "non_detached"):
            raise ValueError("Default actor lifetime must be one of `detached`, `non_detached`")
        self.default_actor_lifetime = default_actor_lifetime

    @classmethod
    def from_json(cls, job_config_json: Mapping[str, Any]) -> Self:
        """From a dictionary of the constructor's arguments, and ``client_job``, which Ray's clients send along.

        Raises: ValueError for other keys; as the constructor.
        """
        given = {key: value for key, value in job_config_json.items() if key != "client_job"}
        names = inspect.signature(cls).parameters
        if unknown := sorted(given.keys() - names.keys()):
            raise ValueError(f"A job's configuration has no {', '.join(unknown)}; it has {', '.join(names)}.")
        return cls(**given)


def _amounts(max_resources: Mapping[str, Any] | None) -> dict[str, float] | None:
    if max_resources is None:
        return None
    if not isinstance(max_resources, Mapping) or not _all_texts(max_resources):
        raise TypeError(f"max_resources must be amounts by the names of resources, not {max_resources!r}")
    check_text("the name of a resource", dict(max_resources))
    for name, amount in max_resources.items():
        if not name:
            raise ValueError("max_resources: the name of a resource must not be empty")
        if isinstance(amount, bool) or not isinstance(amount, int | float | numbers.Real):
            raise TypeError(f"max_resources: {name} must be a number, not {amount!r}")
        if not 0 <= float(amount) < math.inf:
            raise ValueError(f"max_resources: {name} must be a number from 0 on, not {amount!r}")
        if 0 < float(amount) * GRAINS < 1:
            raise ValueError(f"max_resources: {name} must be 0, or at least {1 / GRAINS}, the unit, not {amount!r}")
        if name == OBJECT_STORE_MEMORY:
            raise ValueError("max_resources: objects do not count towards what a job holds; limit its memory instead")
    return {name: float(amount) for name, amount in max_resources.items()} or None


def _all_texts(values: Iterable[object]) -> bool:
    return all(isinstance(value, str) for value in values)
