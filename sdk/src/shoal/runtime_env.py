"""``RuntimeEnv``, ``RuntimeEnvConfig``: what tasks, actors and jobs run in, as dictionaries that check themselves."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Self

from shoal_common.placement.runtime_env import (
    DEFAULT_SETUP_TIMEOUT_S,
    INSTALLERS,
    canonical,
    is_known,
    validate,
    validate_field,
)
from shoal_common.runtime_env_plugins import RuntimeEnvContext, RuntimeEnvPlugin, plugins

logger = logging.getLogger("shoal")

__all__ = ["RuntimeEnv", "RuntimeEnvConfig", "RuntimeEnvContext", "RuntimeEnvPlugin"]


class RuntimeEnvConfig(dict[str, Any]):
    """How an environment is made. ``setup_timeout_seconds``: how long that may take, -1 = for ever.
    ``eager_install``: the environment of a job is made when that begins, and not only for its first task.

    Raises: TypeError, ValueError.
    """

    def __init__(
        self,
        setup_timeout_seconds: int = DEFAULT_SETUP_TIMEOUT_S,
        eager_install: bool = True,
        log_files: list[str] | None = None,
    ) -> None:
        given = {
            "setup_timeout_seconds": setup_timeout_seconds,
            "eager_install": eager_install,
            "log_files": log_files,
        }
        super().__init__(validate_field("config", given))

    def to_dict(self) -> dict[str, Any]:
        return dict(self)


class RuntimeEnv(dict[str, Any]):
    """The environment of a job's, task's or actor's worker processes: ``init(runtime_env=RuntimeEnv(...))``, or a plain
    dictionary of the same.

    ``env_vars``: environment variables by name; ``${NAME}`` stands for the value that the node has.
    ``working_dir``: a directory or zip archive that becomes the current directory, first in ``sys.path``.
    ``py_modules``: packages, archives, wheels or imported modules to import from. Either may be a URI.
    ``pip``, ``uv``: packages to install: a list, a file of requirements, or a dictionary with ``packages`` and options.
    ``conda``: the name of an environment of conda, or a file or dictionary of what it is made of.
    ``py_executable``: the command that runs Python. ``worker_process_setup_hook``: a function, or the name of one, that
    each worker calls before its first task. ``preimport``: modules that workers have imported when they start.
    ``image_uri``: the image of a container that the workers run in; ``container``: the same as a dictionary of
    ``image`` and ``run_options``.
    ``nsight``: "default", or options of ``nsys profile`` by name, which workers are profiled with.
    ``config``: ``setup_timeout_seconds`` and ``eager_install``, see `RuntimeEnvConfig`.
    ``excludes``: what is not uploaded of them, as in ``.gitignore``.

    Raises: TypeError and ValueError for a field that there is not, or whose value is wrong.
    """

    def __init__(
        self,
        *,
        env_vars: Mapping[str, str] | None = None,
        working_dir: str | None = None,
        py_modules: list[str | ModuleType] | None = None,
        excludes: list[str] | None = None,
        conda: str | Mapping[str, Any] | None = None,
        pip: str | list[str] | dict[str, Any] | None = None,
        uv: str | list[str] | dict[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        py_executable: str | None = None,
        worker_process_setup_hook: Callable[[], None] | str | None = None,
        preimport: list[str] | None = None,
        image_uri: str | None = None,
        container: Mapping[str, Any] | None = None,
        nsight: str | Mapping[str, str] | None = None,
        _validate: bool = True,
        **fields: Any,
    ) -> None:
        given = {
            "env_vars": env_vars,
            "working_dir": working_dir,
            "py_modules": py_modules,
            "excludes": excludes,
            "conda": _read("conda", conda),
            "pip": _read("pip", pip),
            "uv": _read("uv", uv),
            "config": config,
            "py_executable": py_executable,
            "worker_process_setup_hook": worker_process_setup_hook,
            "preimport": preimport,
            "image_uri": image_uri,
            "container": container,
            "nsight": nsight,
            **_without_variables(fields),
        }
        if _validate:
            brought = _plugins(given)
            super().__init__(validate(given, brought))
            for name in self.keys() & brought.keys():
                brought[name].validate(self)
        else:
            super().__init__({name: value for name, value in given.items() if value is not None})

    def __setitem__(self, name: str, value: Any) -> None:
        """Raises: as the constructor."""
        name = canonical(name)
        super().__setitem__(name, validate_field(name, _read(name, value), _plugins([name])))

    def to_dict(self) -> dict[str, Any]:
        return dict(self)

    def serialize(self) -> str:
        """JSON with sorted keys."""
        return json.dumps(self, sort_keys=True)

    @classmethod
    def deserialize(cls, serialized_runtime_env: str) -> Self:
        """Raises: ValueError for what is no JSON object, and as the constructor."""
        return cls(**json.loads(serialized_runtime_env))

    def env_vars(self) -> dict[str, str]:
        return dict(self.get("env_vars", {}))

    def has_working_dir(self) -> bool:
        return bool(self.get("working_dir"))

    def working_dir(self) -> str | None:
        return self.get("working_dir")

    def has_py_modules(self) -> bool:
        return bool(self.get("py_modules"))

    def py_modules(self) -> list[str]:
        return list(self.get("py_modules", ()))

    def has_pip(self) -> bool:
        return bool(self.get("pip"))

    def pip_config(self) -> dict[str, Any]:
        return dict(self.get("pip", {}))

    def py_executable(self) -> str | None:
        return self.get("py_executable")

    def has_uv(self) -> bool:
        return bool(self.get("uv"))

    def uv_config(self) -> dict[str, Any]:
        return dict(self.get("uv", {}))


def _without_variables(fields: dict[str, Any]) -> dict[str, Any]:
    """Libraries give variables of Ray's as fields, which Ray drops with a warning."""
    for name in (variables := [name for name in fields if name.startswith("RAY_")]):
        logger.warning("runtime_env has no field %s, which is left out; environment variables go into env_vars", name)
    return {name: value for name, value in fields.items() if name not in variables}


def _plugins(names: Iterable[str]) -> Mapping[str, RuntimeEnvPlugin]:
    """Looked for only where a field needs one."""
    return {} if all(is_known(canonical(name)) for name in names) else plugins()


def _read(name: str, given: Any) -> Any:
    """What a file has in place of its name. Raises: ValueError."""
    if name in INSTALLERS:
        return _listed(given)
    return _file_read(given) if name == "conda" else given


def _listed(given: Any) -> Any:
    """The lines of a file of requirements in place of its name. Raises: ValueError."""
    if not isinstance(given, str):
        return given
    path = Path(given)
    if not path.is_file():
        raise ValueError(f"{given} is not a valid file")
    return [line for line in map(str.strip, path.read_text().splitlines()) if line and not line.startswith("#")]


def _file_read(given: Any) -> Any:
    """The text of a file of conda's in place of its name. Raises: ValueError."""
    if not isinstance(given, str) or not given.endswith((".yml", ".yaml")):
        return given
    path = Path(given)
    if not path.is_file():
        raise ValueError(f"{given} is not a valid file")
    return {"yaml": path.read_text()}
