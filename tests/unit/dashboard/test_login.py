"""Who gets in, through the whole application."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

TOKEN = "token-of-this-test"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
OWN = {"Sec-Fetch-Site": "same-origin"}
BROWSER = {"Accept": "text/html,*/*"}


def log_in(client: TestClient, wanted: str = "/", token: str = TOKEN) -> object:
    return client.post("/login", data={"token": token, "next": wanted}, headers=OWN)


@pytest.mark.parametrize("path", ["/", "/api/version", "/api/jobs/", "/nowhere"])
def test_without_a_token_nothing_is_told_not_even_what_there_is(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


def test_a_wrong_token_is_forbidden(client: TestClient) -> None:
    assert client.get("/nowhere", headers={"Authorization": "Bearer wrong"}).status_code == 403


def test_with_the_token_one_gets_in(client: TestClient) -> None:
    assert client.get("/nowhere", headers=BEARER).status_code == 404
    assert client.get("/nowhere", headers={"X-Ray-Authorization": f"Bearer {TOKEN}"}).status_code == 404


def test_a_token_in_the_address_is_refused_even_the_right_one(client: TestClient) -> None:
    answer = client.get(f"/nowhere?token={TOKEN}", headers=BEARER)
    assert answer.status_code == 400
    assert TOKEN not in answer.text


def test_a_browser_is_sent_to_the_login_and_back_to_where_it_wanted(client: TestClient) -> None:
    answer = client.get("/jobs/a%20b?state=RUNNING", headers=BROWSER)
    assert (answer.status_code, answer.headers["location"]) == (
        303,
        "../login?next=%2Fjobs%2Fa%2520b%3Fstate%3DRUNNING",
    )
    form = client.get(answer.headers["location"].removeprefix(".."))
    assert 'value="/jobs/a%20b?state=RUNNING"' in form.text
    logged_in = client.post("/login", data={"token": TOKEN, "next": "/jobs/a%20b?state=RUNNING"}, headers=OWN)
    assert (logged_in.status_code, logged_in.headers["location"]) == (303, "./jobs/a%20b?state=RUNNING")
    assert client.get("/nowhere").status_code == 404


def test_the_cookie_is_for_no_script_and_no_other_site(client: TestClient) -> None:
    cookie = client.post("/login", data={"token": TOKEN}, headers=OWN).headers["set-cookie"].lower()
    assert {"httponly", "samesite=strict", "path=/"} <= {part.strip() for part in cookie.split(";")}
    assert TOKEN not in cookie and "secure" not in cookie
    proxied = client.post("/login", data={"token": TOKEN}, headers={**OWN, "X-Forwarded-Proto": "https"})
    assert "secure" in proxied.headers["set-cookie"].lower()


@pytest.mark.parametrize("wanted", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)"])
def test_a_login_leads_nowhere_else(client: TestClient, wanted: str) -> None:
    answer = client.post("/login", data={"token": TOKEN, "next": wanted}, headers=OWN)
    assert answer.headers["location"] == "./"


def test_the_login_repeats_nothing_as_markup(client: TestClient) -> None:
    form = client.get("/login", params={"next": '"><script>alert(1)</script>'})
    assert "<script>" not in form.text


def test_a_wrong_token_at_the_login(client: TestClient) -> None:
    answer = client.post("/login", data={"token": "wrong"}, headers=OWN)
    assert answer.status_code == 403
    assert "not the token of this cluster" in answer.text
    assert "set-cookie" not in answer.headers


def test_other_sites_cannot_act_in_the_name_of_who_is_logged_in(client: TestClient) -> None:
    log_in(client)
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}, {}):
        assert client.post("/nowhere", headers=headers).status_code == 403
        assert client.delete("/nowhere", headers=headers).status_code == 403
    assert client.post("/nowhere", headers=OWN).status_code == 404
    assert client.post("/nowhere", headers={"Origin": "http://testserver"}).status_code == 404


def test_programs_with_the_token_need_not_be_browsers(client: TestClient) -> None:
    assert client.post("/nowhere", headers=BEARER).status_code == 404


def test_other_sites_cannot_log_somebody_in(client: TestClient) -> None:
    answer = client.post("/login", data={"token": TOKEN}, headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


def test_logging_out(client: TestClient) -> None:
    log_in(client)
    assert client.post("/logout", headers=OWN).headers["location"] == "./login"
    assert client.get("/nowhere").status_code == 401


def test_as_rays_page_logs_in(client: TestClient) -> None:
    assert client.get("/api/authentication_mode").json() == {"authentication_mode": "token"}
    assert client.post("/api/authenticate").status_code == 401
    assert client.post("/api/authenticate", headers={"Authorization": "Bearer wrong"}).status_code == 403
    answer = client.post("/api/authenticate", headers=BEARER)
    assert answer.json()["status"] == "authenticated"
    assert {"httponly", "samesite=strict"} <= {part.strip() for part in answer.headers["set-cookie"].lower().split(";")}
    assert client.get("/nowhere").status_code == 404


def test_every_answer_has_the_headers(client: TestClient) -> None:
    for answer in (client.get("/login"), client.get("/nowhere"), client.get("/nowhere", headers=BEARER)):
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"


def test_a_body_has_a_bound(client: TestClient) -> None:
    assert client.post("/login", content=b"x" * (1024 * 1024 + 1), headers=OWN).status_code == 413
    parts = (b"x" * 1024 for _ in range(1025))
    assert client.post("/login", content=parts, headers=OWN).status_code == 413
