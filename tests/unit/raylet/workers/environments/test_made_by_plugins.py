from __future__ import annotations

import threading
from typing import Any

import pytest

from shoal_common.runtime_env_plugins import RuntimeEnvContext, RuntimeEnvPlugin
from shoal_raylet.workers.environments import made_by_plugins
from shoal_raylet.workers.environments.cache import Attempt, SetupFailed
from shoal_raylet.workers.environments.made_by_plugins import MadeByPlugins

ATTEMPT = Attempt(-1.0, threading.Event())


class Plugin(RuntimeEnvPlugin):
    """Its field is a list of URIs."""

    name = "things"

    def __init__(self) -> None:
        self.done: list[str] = []

    def get_uris(self, runtime_env: Any) -> list[str]:
        return list(runtime_env["things"])

    async def create(self, uri: str | None, runtime_env: Any, context: RuntimeEnvContext, logger: Any) -> float:
        if uri == "bad":
            raise OSError("no such thing")
        self.done.append(f"create {uri}")
        return 1

    def modify_context(self, uris: list[str], runtime_env: Any, context: RuntimeEnvContext, logger: Any) -> None:
        context.env_vars["THINGS"] = ",".join(uris)

    def delete_uri(self, uri: str, logger: Any) -> float:
        self.done.append(f"delete {uri}")
        return 1


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Plugin:
    plugin = Plugin()
    monkeypatch.setattr(made_by_plugins, "plugins", lambda: {"things": plugin})
    return plugin


def test_each_thing_is_made_once_and_deleted_with_its_last_user(plugin: Plugin) -> None:
    made, context = MadeByPlugins(), RuntimeEnvContext()
    first = made.make({"things": ["a", "b"], "env_vars": {}}, context, ATTEMPT)
    second = made.make({"things": ["a"]}, RuntimeEnvContext(), ATTEMPT)
    assert plugin.done == ["create a", "create b"] and context.env_vars == {"THINGS": "a,b"}
    for use in first:
        use.close()
    assert plugin.done[2:] == ["delete b"]
    for use in second:
        use.close()
    assert plugin.done[3:] == ["delete a"]


def test_what_it_raises_is_told_and_what_it_has_made_is_let_go_of(plugin: Plugin) -> None:
    with pytest.raises(SetupFailed, match="a plugin failed: OSError: no such thing"):
        MadeByPlugins().make({"things": ["a", "bad"]}, RuntimeEnvContext(), ATTEMPT)
    assert plugin.done == ["create a", "delete a"]


def test_without_uris_it_is_asked_for_each_environment(plugin: Plugin) -> None:
    made = MadeByPlugins()
    for _ in range(2):
        assert made.make({"things": []}, RuntimeEnvContext(), ATTEMPT) == []
    assert plugin.done == ["create None"] * 2


def test_a_node_that_lacks_the_plugin_says_so(plugin: Plugin) -> None:
    with pytest.raises(SetupFailed, match="no plugin of this node brings the field 'others'"):
        MadeByPlugins().make({"others": 1}, RuntimeEnvContext(), ATTEMPT)
