"""What plugins make for runtime environments: each URI once, deleted with the last environment that needs it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping
from typing import Any

from shoal_common.placement.runtime_env import is_known
from shoal_common.runtime_env_plugins import RuntimeEnvContext, RuntimeEnvPlugin, plugins
from shoal_raylet.workers.environments.cache import Attempt, SetupFailed

#: A library's, as Ray's plugins expect.
_logger = logging.getLogger("shoal.runtime_env")


class MadeByPlugins:
    """Thread-safe; one plugin makes one thing at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: By plugin and URI: how many environments need it.
        self._users: dict[tuple[str, str], int] = {}

    def make(self, environment: Mapping[str, Any], context: RuntimeEnvContext, attempt: Attempt) -> list[Use]:
        """Ask the plugins of the environment's fields; they change ``context``. Raises: SetupFailed."""
        made: list[Use] = []
        try:
            known = plugins()
            for name, plugin in known.items():
                if name in environment:
                    with self._lock:
                        self._make(plugin, environment, context, attempt, made)
            if lacking := [name for name in environment if not is_known(name) and name not in known]:
                raise SetupFailed(f"no plugin of this node brings the field {lacking[0]!r}")
        except Exception as error:  # plugins raise what they like
            for use in made:
                use.close()
            if isinstance(error, SetupFailed):
                raise
            raise SetupFailed(f"a plugin failed: {type(error).__name__}: {error}") from error
        return made

    def _make(
        self,
        plugin: RuntimeEnvPlugin,
        environment: Mapping[str, Any],
        context: RuntimeEnvContext,
        attempt: Attempt,
        made: list[Use],
    ) -> None:
        async def create(uri: str | None) -> None:
            async with asyncio.timeout(attempt.left()):
                await plugin.create(uri, environment, context, _logger)

        uris = plugin.get_uris(environment)
        for uri in uris:
            if not self._users.get((plugin.name, uri)):
                asyncio.run(create(uri))
            self._users[plugin.name, uri] = self._users.get((plugin.name, uri), 0) + 1
            made.append(Use(self, plugin, uri))
        if not uris:
            asyncio.run(create(None))
        plugin.modify_context(uris, environment, context, _logger)

    def not_used(self, plugin: RuntimeEnvPlugin, uri: str) -> None:
        with self._lock:
            self._users[plugin.name, uri] -= 1
            if not self._users[plugin.name, uri]:
                del self._users[plugin.name, uri]
                try:
                    plugin.delete_uri(uri, _logger)
                except Exception:  # plugins raise what they like, and nobody waits for this one
                    _logger.exception("the plugin %s did not delete %s", plugin.name, uri)


class Use:
    """An environment's, of what a plugin has made."""

    def __init__(self, of: MadeByPlugins, plugin: RuntimeEnvPlugin, uri: str) -> None:
        self._of = of
        self._plugin = plugin
        self._uri = uri

    def close(self) -> None:
        self._of.not_used(self._plugin, self._uri)
