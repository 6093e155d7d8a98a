"""compose.yaml and the Dockerfile, read as data: what they say must exist in the services."""

from __future__ import annotations

import dataclasses
import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES = ("gcs", "scheduler", "objectstore", "raylet")
CONFIGS = {
    "gcs": "GcsConfig",
    "scheduler": "SchedulerConfig",
    "objectstore": "ObjectStoreConfig",
    "raylet": "RayletConfig",
}


def test_every_service_of_the_repository_is_deployed() -> None:
    assert {path.name for path in (ROOT / "services").iterdir() if path.is_dir()} == set(SERVICES)
    assert set(SERVICES) <= set(COMPOSE["services"])


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_every_image_can_be_replaced(name: str) -> None:
    assert re.fullmatch(r"\$\{SHOAL_[A-Z]+_IMAGE:-[^}]+\}", COMPOSE["services"][name]["image"])


@pytest.mark.parametrize("name", SERVICES)
def test_the_command_is_the_entry_point(name: str) -> None:
    assert COMPOSE["services"][name]["command"] == ["python", "-m", f"shoal_{name}"]
    assert (ROOT / "services" / name / "src" / f"shoal_{name}" / "__main__.py").is_file()


@pytest.mark.parametrize("name", SERVICES)
def test_every_variable_is_a_setting_and_no_required_one_is_missing(name: str) -> None:
    config = getattr(importlib.import_module(f"shoal_{name}.config"), CONFIGS[name])
    fields = {f"SHOAL_{name.upper()}_{field.name.upper()}": field for field in dataclasses.fields(config)}
    fields.pop(f"SHOAL_{name.upper()}_TOKEN")
    required = {
        variable
        for variable, field in fields.items()
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    variables = set(COMPOSE["services"][name]["environment"]) - {"SHOAL_AUTH_TOKEN_PATH"}
    assert required <= variables <= set(fields)


@pytest.mark.parametrize("name", SERVICES)
def test_the_health_check_asks_the_port_of_the_service(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["healthcheck"]["test"][:4] == ["CMD", "python", "-m", "shoal_common.healthcheck"]
    assert service["healthcheck"]["test"][4].endswith(":" + service["environment"][f"SHOAL_{name.upper()}_PORT"])


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_gets_its_own_distributions_and_no_other_service(name: str) -> None:
    paths = COMPOSE["services"][name]["build"]["args"]["DISTRIBUTIONS"].split()
    assert all((ROOT / path / "pyproject.toml").is_file() for path in paths)
    assert [path for path in paths if path.startswith("./services/")] == [f"./services/{name}"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_no_rights(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"] is True
    assert "privileged" not in service and "ports" not in service


def test_containers_do_not_run_as_root() -> None:
    instructions = (ROOT / "docker" / "Dockerfile").read_text().splitlines()
    assert [line for line in instructions if line.startswith("USER")] == ["USER 1000"]


def test_the_token_is_in_no_environment() -> None:
    for service in COMPOSE["services"].values():
        assert [name for name in service.get("environment", {}) if name.endswith("TOKEN")] == []


def test_the_build_context_has_what_the_dockerfile_copies() -> None:
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignore[0] == "*"
    copied = re.findall(r"^COPY (?!--from)(\S+)", (ROOT / "docker" / "Dockerfile").read_text(), re.MULTILINE)
    assert {f"!{path}" for path in copied} <= set(ignore)
