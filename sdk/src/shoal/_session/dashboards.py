"""Which dashboard a program asks: its address, and the token for it."""

from __future__ import annotations

import os
from collections.abc import Mapping

from shoal._net.dashboard import DashboardClient
from shoal._session.address import given_token

#: In the order in which they are asked for an address; the second is Ray's.
ADDRESS_VARIABLES = ("SHOAL_DASHBOARD_ADDRESS", "RAY_API_SERVER_ADDRESS")


def dashboard_client(
    address: str | None,
    *,
    headers: Mapping[str, str] | None = None,
    cookies: Mapping[str, str] | None = None,
    verify: str | bool | None = True,
) -> DashboardClient:
    """``address``: ``http(s)://host:port``; None = what the environment names.

    Raises: ConnectionError (none is known), ValueError (no such address), AuthenticationError.
    """
    named = address or next(filter(None, map(os.environ.get, ADDRESS_VARIABLES)), None)
    if named is None:
        raise ConnectionError(
            f"No dashboard is known: set {ADDRESS_VARIABLES[0]} to its address, like http://127.0.0.1:8265, or give it"
        )
    given = dict(headers or {})
    if cookies:
        given.setdefault("Cookie", "; ".join(f"{name}={value}" for name, value in cookies.items()))
    return DashboardClient(named, given_token(), headers=given, verify=verify)
