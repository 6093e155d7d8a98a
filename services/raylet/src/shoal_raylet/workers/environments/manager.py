"""The runtime environments of this node: each is made once, however many wait for it."""

from __future__ import annotations

from collections.abc import Mapping

from shoal_common.placement import runtime_env
from shoal_raylet.workers.environments.launch import PLAIN, Launch


class EnvironmentManager:
    """Belongs to one event loop."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """``environ``: the node's own environment variables."""
        self._environ = environ
        #: By the key of the environment.
        self._made: dict[str, Launch] = {"": PLAIN}

    async def prepare(self, key: str, document: str) -> None:
        self._made[key] = Launch(
            document, runtime_env.expanded(runtime_env.decode(document).get("env_vars", {}), self._environ)
        )

    def launch(self, key: str) -> Launch:
        """Of one that was prepared and is not released."""
        return self._made[key]

    def release(self, key: str) -> None:
        del self._made[key]
