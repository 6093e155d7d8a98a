"""Without its cluster the dashboard answers, and says so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from starlette.testclient import TestClient

from shoal_dashboard.cluster import cluster
from shoal_dashboard.cluster.cluster import Cluster

BEARER = {"Authorization": "Bearer token-of-this-test"}


def test_it_lives_and_says_why_it_has_nothing_to_tell(client: TestClient) -> None:
    assert client.get("/api/healthz").text == "success"
    assert client.get("/api/gcs_healthz").status_code == 503
    answer = client.get("/api/version", headers=BEARER)
    assert answer.status_code == 503
    assert answer.text.startswith("The cluster does not answer: ")
    assert answer.headers["retry-after"] == "2"


def test_who_comes_later_does_not_wait_as_the_first_one(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[object] = []

    async def retrying(call: Callable[[], Awaitable[object]]) -> object:
        tries.append(call)
        return await call()

    monkeypatch.setattr(cluster, "retrying", retrying)
    for _ in range(3):
        assert client.get("/api/version", headers=BEARER).status_code == 503
    assert len(tries) <= 1, "only the first one asks again and again"


@pytest.mark.parametrize("path", ["/", "/view/jobs", "/view/nodes/00"])
def test_pages_give_up_while_the_cluster_is_still_asked(
    path: str, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def for_ever(*_args: object, **_how: object) -> object:
        await asyncio.Event().wait()
        raise AssertionError

    for asked in ("nodes", "jobs"):
        monkeypatch.setattr(Cluster, asked, for_ever)
    answer = client.get(path, headers=BEARER)
    assert answer.status_code == 503
    assert answer.text.startswith("The cluster does not answer: ")
