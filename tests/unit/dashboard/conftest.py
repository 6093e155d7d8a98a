from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from shoal_dashboard.app import create_app
from shoal_dashboard.config import DashboardConfig
from shoal_dashboard.context import Context

TOKEN = "token-of-this-test"


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    """The application, on a cluster that is not there; redirects are answers."""
    config = DashboardConfig(token=TOKEN, gcs_address="127.0.0.1:1")
    with TestClient(create_app(Context(config)), follow_redirects=False) as client:
        yield client


@pytest.fixture(autouse=True)
def logged_out(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "client" in request.fixturenames:
        request.getfixturevalue("client").cookies.clear()
