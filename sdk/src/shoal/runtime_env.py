"""``RuntimeEnv``: what tasks, actors and jobs run in, as a dictionary that checks itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Self

from shoal_common.placement.runtime_env import INSTALLERS, validate, validate_field


class RuntimeEnv(dict[str, Any]):
    """The environment of a job's, task's or actor's worker processes: ``init(runtime_env=RuntimeEnv(...))``, or a plain
    dictionary of the same.

    ``env_vars``: environment variables by name; ``${NAME}`` stands for the value that the node has.
    ``working_dir``: a directory or zip archive that becomes the current directory, first in ``sys.path``.
    ``py_modules``: packages, archives, wheels or imported modules to import from. Either may be a URI.
    ``pip``, ``uv``: packages to install: a list, a file of requirements, or a dictionary with ``packages`` and options.
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
        pip: str | list[str] | dict[str, Any] | None = None,
        uv: str | list[str] | dict[str, Any] | None = None,
        _validate: bool = True,
        **fields: Any,
    ) -> None:
        given = {
            "env_vars": env_vars,
            "working_dir": working_dir,
            "py_modules": py_modules,
            "excludes": excludes,
            "pip": _listed(pip),
            "uv": _listed(uv),
            **fields,
        }
        super().__init__(validate(given) if _validate else {k: v for k, v in given.items() if v is not None})

    def __setitem__(self, name: str, value: Any) -> None:
        """Raises: as the constructor."""
        super().__setitem__(name, validate_field(name, _listed(value) if name in INSTALLERS else value))

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

    def has_uv(self) -> bool:
        return bool(self.get("uv"))

    def uv_config(self) -> dict[str, Any]:
        return dict(self.get("uv", {}))


def _listed(given: Any) -> Any:
    """The lines of a file of requirements in place of its name. Raises: ValueError."""
    if not isinstance(given, str):
        return given
    path = Path(given)
    if not path.is_file():
        raise ValueError(f"{given} is not a valid file")
    return [line for line in map(str.strip, path.read_text().splitlines()) if line and not line.startswith("#")]
