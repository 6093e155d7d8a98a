"""Which dashboard a program asks: its address, and the token for it."""

from __future__ import annotations

import os
from collections.abc import Mapping

from shoal import _current
from shoal._launch.dashboards import url_of
from shoal._net.dashboard import DashboardClient
from shoal._net.gcs.client import visiting
from shoal._session.address import gcs_meant, given_token, token_for
from shoal.exceptions import RpcError

#: In the order in which they are asked for an address; the second is Ray's.
ADDRESS_VARIABLES = ("SHOAL_DASHBOARD_ADDRESS", "RAY_API_SERVER_ADDRESS")


def dashboard_client(
    address: str | None,
    *,
    headers: Mapping[str, str] | None = None,
    cookies: Mapping[str, str] | None = None,
    verify: str | bool | None = True,
) -> DashboardClient:
    """``address``: ``http(s)://host:port`` of the dashboard, or host:port of a GCS, which knows where it is; "auto" =
    that of this session's cluster, else of the one on this machine; None = what the environment names, else "auto".
    The session's own dashboard, also as ``Context.dashboard_url`` writes it, is told the session's token.
    ``verify``: as `DashboardClient` has it; True also takes a certificate of the cluster's own authority, SHOAL_TLS_CA.

    Raises: ConnectionError (none is known, or nobody there), ValueError (no such address), AuthenticationError.
    """
    if address is None:
        address = next(filter(None, map(os.environ.get, ADDRESS_VARIABLES)), None)
    if address is not None and _is_own(address):
        address = "auto"
    if verify is True and (authority := os.environ.get("SHOAL_TLS_CA")):
        verify = authority
    given = dict(headers or {})
    if cookies:
        given.setdefault("Cookie", "; ".join(f"{name}={value}" for name, value in cookies.items()))
    if address is not None and address.startswith(("http://", "https://")):
        return DashboardClient(address, given_token(), headers=given, verify=verify)
    url, token = _told_by_the_cluster(address)
    return DashboardClient(url, token, headers=given, verify=verify)


def own_tasks_mark() -> dict[str, str]:
    """What a question about tasks has with it, so that its answer knows what this process has seen end before it."""
    core = _current.current_or_none()
    mark = core.task_reports.mark() if core is not None else ""
    return {"after": mark} if mark else {}


def _is_own(address: str) -> bool:
    """Whether it is the dashboard of this session's cluster, with or without ``http(s)://``."""
    core = _current.current_or_none()
    if core is None:
        return False
    try:
        url = url_of(core.gcs)
    except RpcError:  # a cluster that is away says of no address that it is its own
        return False
    return url is not None and address.rstrip("/") in (url, url.partition("://")[2])


def _told_by_the_cluster(address: str | None) -> tuple[str, str]:
    """URL and token. ``address``: of its GCS; None or "auto": of this session, or of this machine."""
    core = _current.current_or_none()
    if address in (None, "auto") and core is not None:
        where, url = core.gcs.address, url_of(core.gcs)
    else:
        where = gcs_meant(address)
        with visiting(where, token_for(where)) as gcs:
            url = url_of(gcs)
    if url is None:
        raise ConnectionError(f"The cluster at {where} has no dashboard: `shoal dashboard` starts one")
    return url, token_for(where)
