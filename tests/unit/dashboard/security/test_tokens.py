"""Which requests show the token of the cluster."""

from __future__ import annotations

import pytest

from shoal_dashboard.security.tokens import RAY_COOKIE, SESSION_S, Shown, Tokens

TOKEN = "3f" * 32
TOKENS = Tokens(TOKEN)
NOW = 1_700_000_000.0


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    ("headers", "cookies", "shown"),
    [
        ({}, {}, Shown.NOTHING),
        (bearer(TOKEN), {}, Shown.HEADER),
        ({"authorization": f"bearer  {TOKEN} "}, {}, Shown.HEADER),
        (bearer("wrong"), {}, Shown.WRONG),
        (bearer(""), {}, Shown.WRONG),
        (bearer("ü"), {}, Shown.WRONG),
        # That header belongs to somebody on the way.
        ({"authorization": "Basic dTpw"}, {}, Shown.NOTHING),
        ({"authorization": "Basic dTpw", "x-ray-authorization": f"Bearer {TOKEN}"}, {}, Shown.HEADER),
        (bearer("of a proxy") | {"x-ray-authorization": f"Bearer {TOKEN}"}, {}, Shown.HEADER),
        ({}, {RAY_COOKIE: TOKEN}, Shown.COOKIE),
        ({}, {RAY_COOKIE: "wrong"}, Shown.WRONG),
        (bearer("wrong"), {RAY_COOKIE: TOKEN}, Shown.WRONG),
        (bearer(TOKEN), {RAY_COOKIE: "wrong"}, Shown.HEADER),
    ],
)
def test_what_a_request_shows(headers: dict[str, str], cookies: dict[str, str], shown: Shown) -> None:
    assert TOKENS.shown(headers, cookies, NOW) is shown


def test_a_login_is_good_until_its_end() -> None:
    session = {TOKENS.session_cookie: TOKENS.new_session(NOW)}
    assert TOKENS.shown({}, session, NOW) is Shown.COOKIE
    assert TOKENS.shown({}, session, NOW + SESSION_S - 1) is Shown.COOKIE
    assert TOKENS.shown({}, session, NOW + SESSION_S) is Shown.NOTHING


def test_a_login_does_not_hold_the_token_and_cannot_be_prolonged() -> None:
    session = TOKENS.new_session(NOW)
    assert TOKEN not in session
    end, _, proof = session.partition(".")
    for forged in (f"{int(end) + 1}.{proof}", f"{end}.", end, "", f"-{end}.{proof}", f"{'9' * 5000}.{proof}", "².x"):
        assert TOKENS.shown({}, {TOKENS.session_cookie: forged}, NOW) is Shown.NOTHING


def test_clusters_on_one_host_have_logins_of_their_own() -> None:
    other = Tokens("another")
    assert other.session_cookie != TOKENS.session_cookie
    assert other.shown({}, {other.session_cookie: TOKENS.new_session(NOW)}, NOW) is Shown.NOTHING


@pytest.mark.parametrize(
    "query",
    [f"token={TOKEN}", "token=", "limit=1&Access_Token=x", f"q={TOKEN}", "authorization=Bearer%20x", f"{TOKEN}="],
)
def test_a_token_in_an_address_is_seen(query: str) -> None:
    assert TOKENS.in_query(query)


@pytest.mark.parametrize("query", ["", "limit=10", "filter_keys=name&filter_values=token", "next=%2Ftokens"])
def test_other_queries_have_none(query: str) -> None:
    assert not TOKENS.in_query(query)
