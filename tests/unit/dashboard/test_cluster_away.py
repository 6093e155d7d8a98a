"""Without its cluster the dashboard answers, and says so."""

from __future__ import annotations

from starlette.testclient import TestClient

BEARER = {"Authorization": "Bearer token-of-this-test"}


def test_it_lives_and_says_why_it_has_nothing_to_tell(client: TestClient) -> None:
    assert client.get("/api/healthz").text == "success"
    assert client.get("/api/gcs_healthz").status_code == 503
    answer = client.get("/api/version", headers=BEARER)
    assert answer.status_code == 503
    assert answer.text.startswith("The cluster does not answer: ")
    assert answer.headers["retry-after"] == "2"
