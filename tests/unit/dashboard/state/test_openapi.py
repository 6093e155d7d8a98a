"""The description says what there is, no more and no less."""

from __future__ import annotations

from starlette.routing import Route
from starlette.testclient import TestClient

from shoal_common.state_rows import RESOURCES
from shoal_dashboard.config import DashboardConfig
from shoal_dashboard.context import Context
from shoal_dashboard.rest import jobs, logs, packages, profiles, state
from shoal_dashboard.state.openapi import document


def test_every_endpoint_for_programs_is_described(client: TestClient) -> None:
    context = Context(DashboardConfig(token="t", gcs_address="127.0.0.1:1"))
    there: dict[str, set[str]] = {path: {"get"} for path in profiles.ACTING_PATHS}
    for family in (state, jobs, packages, logs):
        for route in family.routes(context):
            if isinstance(route, Route):
                methods = set(dir(route.endpoint)) & {"get", "post", "put", "delete"} or {"get"}
                there.setdefault(route.path.replace(":path", ""), set()).update(methods)
    described = client.get("/openapi.json", headers={"Authorization": "Bearer token-of-this-test"}).json()
    assert {path: set(operations) for path, operations in described["paths"].items()} == there


def test_every_column_has_a_type_and_every_reference_leads_somewhere() -> None:
    described = document("1", {})
    schemas = described["components"]["schemas"]
    for name, kind in RESOURCES.items():
        listing = described["paths"][f"/api/v0/{name}"]["get"]["responses"]["200"]["content"]["application/json"]
        rows = listing["schema"]["properties"]["data"]["properties"]["result"]["properties"]["result"]
        schema = schemas[rows["items"]["$ref"].rpartition("/")[2]]
        assert list(schema["properties"]) == list(kind.columns())
        assert set(schema["required"]) == set(kind.columns(detail=False))
    assert schemas["ActorState"]["properties"]["pid"] == {"type": ["integer", "null"]}
    assert schemas["NodeState"]["properties"]["labels"] == {"type": "object"}


def test_it_is_served(client: TestClient) -> None:
    assert client.get("/openapi.json").status_code == 401
    answer = client.get("/openapi.json", headers={"Authorization": "Bearer token-of-this-test"})
    assert answer.json()["openapi"] == "3.1.0"
