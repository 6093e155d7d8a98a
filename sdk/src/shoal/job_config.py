"""``JobConfig``: what ``shoal.init(job_config=...)`` says of the whole job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self


class JobConfig:
    """``ray_namespace``: of its named actors (None = one of its own). ``default_actor_lifetime``: "non_detached" or
    "detached". ``metadata``: free text by key, kept with the job. ``code_search_path``: directories that workers
    add to ``sys.path``. ``jvm_options`` has no effect: there are no Java workers.

    Raises: TypeError (code_search_path is not a list), ValueError (unknown lifetime).
    """

    def __init__(
        self,
        jvm_options: list[str] | None = None,
        code_search_path: list[str] | None = None,
        runtime_env: Mapping[str, Any] | None = None,
        metadata: dict[str, str] | None = None,
        ray_namespace: str | None = None,
        default_actor_lifetime: str = "non_detached",
    ) -> None:
        if not isinstance(code_search_path or [], (list, tuple)):
            raise TypeError(f"The type of code search path is incorrect: {type(code_search_path)}")
        self.jvm_options = jvm_options or []
        self.code_search_path = list(code_search_path or [])
        self.metadata = metadata or {}
        self.ray_namespace = ray_namespace
        self.set_runtime_env(runtime_env)
        self.set_default_actor_lifetime(default_actor_lifetime)

    def set_metadata(self, key: str, value: str) -> None:
        """An earlier value of the key is replaced."""
        self.metadata[key] = value

    def set_ray_namespace(self, ray_namespace: str) -> None:
        self.ray_namespace = ray_namespace

    def set_runtime_env(self, runtime_env: Mapping[str, Any] | None) -> None:
        self.runtime_env = runtime_env or {}

    def set_default_actor_lifetime(self, default_actor_lifetime: str) -> None:
        """Raises: ValueError."""
        if default_actor_lifetime not in ("detached", "non_detached"):
            raise ValueError("Default actor lifetime must be one of `detached`, `non_detached`")
        self.default_actor_lifetime = default_actor_lifetime

    @classmethod
    def from_json(cls, job_config_json: Mapping[str, Any]) -> Self:
        """From a dictionary of the constructor's arguments; other keys are ignored."""
        names = ("jvm_options", "code_search_path", "runtime_env", "metadata", "ray_namespace")
        return cls(**{name: job_config_json[name] for name in names if name in job_config_json})
