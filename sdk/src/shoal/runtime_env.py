"""``RuntimeEnv``: what tasks, actors and jobs run in, as a dictionary that checks itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Self

from shoal_common.placement.runtime_env import validate, validate_field


class RuntimeEnv(dict[str, Any]):
    """The environment of a job's, task's or actor's worker processes: ``init(runtime_env=RuntimeEnv(...))``, or a plain
    dictionary of the same.

    ``env_vars``: environment variables by name; ``${NAME}`` stands for the value that the node has.

    Raises: TypeError and ValueError for a field that there is not, or whose value is wrong.
    """

    def __init__(self, *, env_vars: Mapping[str, str] | None = None, _validate: bool = True, **fields: Any) -> None:
        given = {"env_vars": env_vars, **fields}
        super().__init__(validate(given) if _validate else {k: v for k, v in given.items() if v is not None})

    def __setitem__(self, name: str, value: Any) -> None:
        """Raises: as the constructor."""
        super().__setitem__(name, validate_field(name, value))

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
