from __future__ import annotations

import importlib.metadata

import pytest

from shoal_raylet.workers.environments.virtual_envs import digest

WANTED = {"packages": ["a==1"], "pip_check": False}


def test_what_is_installed_is_told_by_the_index_but_not_by_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "distributions", list)  # looking for them takes its time
    plain = digest("pip", WANTED, {"OTHER": "x"})
    assert plain == digest("pip", WANTED, {})
    one, two = ({"PIP_INDEX_URL": f"https://{user}@index/simple"} for user in ("me:secret", "you:other"))
    assert plain != digest("pip", WANTED, one) == digest("pip", WANTED, two)
    assert digest("pip", WANTED, one) == digest("pip", WANTED, {"PIP_INDEX_URL": "https://index/simple"})
    assert digest("pip", WANTED, one) != digest("pip", WANTED, {"PIP_INDEX_URL": "https://another/simple"})
