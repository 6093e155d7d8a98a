"""Fields of runtime environments that others bring: plugins, with Ray's interface.

A plugin is a subclass of `RuntimeEnvPlugin`. It is named by an entry point of the group ``shoal.runtime_env_plugins``,
or in SHOAL_RUNTIME_ENV_PLUGINS, a JSON list of ``{"class": "module.Class", "priority": 10}``, on the nodes and at the
driver.
"""

from __future__ import annotations

import functools
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ENTRY_POINTS = "shoal.runtime_env_plugins"
VARIABLE = "SHOAL_RUNTIME_ENV_PLUGINS"


@dataclass(slots=True)
class RuntimeEnvContext:
    """How the workers of an environment are started; a plugin may change it."""

    #: On top of the node's own.
    env_vars: dict[str, str] = field(default_factory=dict)
    #: The command that runs Python.
    py_executable: str = ""


class RuntimeEnvPlugin:
    """The field ``name`` of runtime environments. Methods run on each node, in a thread of its raylet; what they raise
    becomes a ``RuntimeEnvSetupError``."""

    name: str = ""
    #: Lower ones come first.
    priority: int = 10

    @staticmethod
    def validate(runtime_env_dict: Mapping[str, Any]) -> None:
        """At the driver. Raises: whatever it likes for a value that is wrong."""

    def get_uris(self, runtime_env: Mapping[str, Any]) -> list[str]:
        """What is to be made, each once however many environments need it."""
        return []

    async def create(
        self, uri: str | None, runtime_env: Mapping[str, Any], context: RuntimeEnvContext, logger: logging.Logger
    ) -> float:
        """Make it; returns its size in bytes. None: there are no URIs."""
        return 0

    def modify_context(
        self, uris: list[str], runtime_env: Mapping[str, Any], context: RuntimeEnvContext, logger: logging.Logger
    ) -> None:
        """Before each environment's first worker."""

    def delete_uri(self, uri: str, logger: logging.Logger) -> float:
        """No environment needs it any more; returns the bytes that are free again."""
        return 0


@functools.cache
def plugins() -> Mapping[str, RuntimeEnvPlugin]:
    """Those of this process by field, the order that of their priorities.

    Raises: ValueError for a setting that names none, what importing one raises.
    """
    import importlib.metadata  # some 40 modules, which otherwise nobody needs

    found = [entry.load()() for entry in importlib.metadata.entry_points(group=ENTRY_POINTS)]
    try:
        named = json.loads(os.environ.get(VARIABLE) or "[]")
        for each in named:
            module, _, name = each["class"].rpartition(".")
            plugin = getattr(importlib.import_module(module), name)()
            plugin.priority = each.get("priority", plugin.priority)
            found.append(plugin)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f'{VARIABLE} must be like [{{"class": "module.Class"}}]: {error}') from error
    return {plugin.name: plugin for plugin in sorted(found, key=lambda plugin: plugin.priority)}
