"""Eight distributions that fit together, each installable on its own with what it declares."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
DISTRIBUTIONS = {
    "shoal-common": ROOT / "common",
    "shoal": ROOT / "sdk",
    **{
        f"shoal-{directory.name}": directory
        for directory in sorted((ROOT / "services").iterdir())
        if directory.is_dir()
    },
}
SERVICES = sorted(set(DISTRIBUTIONS) - {"shoal-common", "shoal"})


def project(name: str) -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((DISTRIBUTIONS[name] / "pyproject.toml").read_text())["project"]
    return table


#: Not for everybody who runs a cluster on one machine.
EXTRA = {"shoal-autoscaler", "shoal-dashboard"}


def required(name: str) -> dict[str, Requirement]:
    requirements = [Requirement(line) for line in project(name)["dependencies"]]
    return {requirement.name: requirement for requirement in requirements}


def pins() -> dict[str, Version]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    return {normalized(name): Version(version) for name, version in (line.split("==") for line in lines)}


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_services_are_the_four_the_head_that_hosts_them_the_dashboard_and_the_autoscaler() -> None:
    assert SERVICES == [
        "shoal-autoscaler",
        "shoal-dashboard",
        "shoal-gcs",
        "shoal-head",
        "shoal-objectstore",
        "shoal-raylet",
        "shoal-scheduler",
    ]


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_metadata(name: str) -> None:
    metadata = project(name)
    assert metadata["name"] == name
    assert metadata["version"] == project("shoal")["version"]
    assert metadata["requires-python"] == ">=3.11"
    assert metadata["classifiers"] == project("shoal")["classifiers"]
    assert metadata["description"].strip()


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_the_package_says_that_it_is_typed(name: str) -> None:
    package = name.replace("-", "_")
    tools = tomllib.loads((DISTRIBUTIONS[name] / "pyproject.toml").read_text())["tool"]
    assert (DISTRIBUTIONS[name] / "src" / package / "py.typed").is_file()
    assert "py.typed" in tools["setuptools"]["package-data"][package]


@pytest.mark.parametrize("name", ["shoal", *SERVICES])
def test_ours_depend_on_common_alone_in_the_same_version(name: str) -> None:
    ours = {other: requirement for other, requirement in required(name).items() if other in DISTRIBUTIONS}
    hosted = set(SERVICES) - {"shoal-head", *EXTRA} if name == "shoal-head" else set()
    assert set(ours) == {"shoal-common"} | hosted
    for requirement in ours.values():
        assert str(requirement.specifier) == f"=={project('shoal')['version']}"


def test_common_depends_on_none_of_ours() -> None:
    assert not set(required("shoal-common")) & set(DISTRIBUTIONS)


def test_the_extras_bring_the_services() -> None:
    extras = {
        name: [Requirement(line) for line in lines] for name, lines in project("shoal")["optional-dependencies"].items()
    }
    for name in EXTRA:
        assert [requirement.name for requirement in extras[name.removeprefix("shoal-")]] == [name]
    assert sorted(requirement.name for requirement in extras["local"]) == ["shoal", *sorted(set(SERVICES) - EXTRA)]
    assert [requirement.extras for requirement in extras["local"] if requirement.name == "shoal"] == [{"cli"}]


def test_requirements_install_every_distribution() -> None:
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line.startswith("-e")]
    paths = {(ROOT / line.removeprefix("-e ").partition("[")[0]).resolve() for line in lines}
    assert paths == set(DISTRIBUTIONS.values())


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_every_dependency_is_pinned_to_a_version_that_it_accepts(name: str) -> None:
    for dependency, requirement in required(name).items():
        if dependency not in DISTRIBUTIONS:
            assert requirement.specifier.contains(pins()[normalized(dependency)]), dependency


def test_every_development_tool_is_pinned() -> None:
    lines = (ROOT / "requirements-dev.txt").read_text().splitlines()
    names = {normalized(line) for line in lines if line and not line.startswith(("#", "-"))}
    assert names <= set(pins())
