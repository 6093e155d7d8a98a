from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator

import pytest

from shoal_common.runtime_env_plugins import VARIABLE, RuntimeEnvPlugin, plugins


class First(RuntimeEnvPlugin):
    name = "first"


class Second(RuntimeEnvPlugin):
    name = "second"


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    plugins.cache_clear()
    yield
    plugins.cache_clear()


def test_plugins_are_named_by_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    named = f'[{{"class": "{__name__}.Second"}}, {{"class": "{__name__}.First", "priority": 1}}]'
    monkeypatch.setenv(VARIABLE, named)
    assert list(plugins()) == ["first", "second"]


def test_plugins_are_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        def load(self) -> type[RuntimeEnvPlugin]:
            return First

    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [Entry()])
    assert list(plugins()) == ["first"]


@pytest.mark.parametrize("setting", ["{", "[1]", '[{"class": "os.nothing"}]', "[{}]"])
def test_a_setting_that_names_none(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    monkeypatch.setenv(VARIABLE, setting)
    with pytest.raises(ValueError, match=VARIABLE):
        plugins()
