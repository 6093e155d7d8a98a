"""Which token a dashboard is told."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from shoal._session import dashboards

OWN = "http://10.0.0.1:8265"


@pytest.mark.parametrize("address", [OWN, f"{OWN}/", "10.0.0.1:8265"])
def test_the_sessions_own_dashboard_is_told_its_token(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    _in_a_session(monkeypatch)
    client = dashboards.dashboard_client(address)
    assert client.address == OWN
    assert client._headers["Authorization"] == "Bearer of 10.0.0.1:6379"


def test_another_dashboard_is_not_told_the_sessions_token(monkeypatch: pytest.MonkeyPatch) -> None:
    _in_a_session(monkeypatch)
    client = dashboards.dashboard_client("http://10.0.0.2:8265")
    assert client.address == "http://10.0.0.2:8265"
    assert client._headers == {}


def _in_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    core = SimpleNamespace(gcs=SimpleNamespace(address="10.0.0.1:6379"))
    monkeypatch.setattr(dashboards._current, "current_or_none", lambda: core)
    monkeypatch.setattr(dashboards, "url_of", lambda gcs: OWN)
    monkeypatch.setattr(dashboards, "token_for", lambda address: f"of {address}")
    monkeypatch.setattr(dashboards, "given_token", lambda: "")
