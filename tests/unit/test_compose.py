"""compose.yaml and the Dockerfiles, read as data: what they say must exist in the services."""

from __future__ import annotations

import dataclasses
import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from shoal_common.tls import VARIABLES, Tls

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
CONTAINERS: dict[str, Any] = COMPOSE["services"]
#: What compose.tls.yaml adds to them.
SECURED: dict[str, Any] = yaml.safe_load((ROOT / "compose.tls.yaml").read_text())["services"]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()
VERSION = tomllib.loads((ROOT / "sdk" / "pyproject.toml").read_text())["project"]["version"]
#: Service → its config class.
CONFIGS = {
    "gcs": "GcsConfig",
    "scheduler": "SchedulerConfig",
    "objectstore": "ObjectStoreConfig",
    "raylet": "RayletConfig",
    "dashboard": "DashboardConfig",
}
BUILT = [name for name, container in CONTAINERS.items() if "build" in container]


def images(container: dict[str, Any]) -> tuple[str, str]:
    """The variable that replaces its image, and its image."""
    match = re.fullmatch(r"\$\{(SHOAL_[A-Z]+_IMAGE):-([^}]+)\}", container["image"])
    assert match, f"no image that an env file can replace: {container['image']}"
    return match[1], match[2]


def stage(name: str) -> str:
    """The instructions of one stage of the Dockerfile."""
    [text] = re.findall(rf"^FROM \S+ AS {name}\n(.*?)(?=^FROM |\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL)
    return str(text)


def test_every_service_of_the_repository_is_deployed() -> None:
    # The head is no part of a deployment: it hosts the services for one driver. The autoscaler has the Docker socket,
    # which is all of the machine: whoever wants that adds compose.autoscaler.yaml.
    services = {path.name for path in (ROOT / "services").iterdir() if path.is_dir()}
    assert services == {*CONFIGS, "head", "autoscaler"}
    assert set(yaml.safe_load((ROOT / "compose.autoscaler.yaml").read_text())["services"]) == {"autoscaler"}
    assert set(CONFIGS) <= set(CONTAINERS)


def test_local_images_replace_every_public_one() -> None:
    lines = (ROOT / "docker" / "local-images.env").read_text().splitlines()
    replaced = {line.partition("=")[0] for line in lines if not line.startswith("#")}
    public = {images(container)[0] for container in CONTAINERS.values() if "build" not in container}
    # Grafana, the other one of compose.monitoring.yaml, is not built from source.
    prometheus = yaml.safe_load((ROOT / "compose.monitoring.yaml").read_text())["services"]["prometheus"]
    assert replaced == public | {"SHOAL_PYTHON_IMAGE", images(prometheus)[0]}


@pytest.mark.parametrize("name", BUILT)
def test_our_images_have_our_version_and_a_target(name: str) -> None:
    target = CONTAINERS[name]["build"]["target"]
    assert images(CONTAINERS[name])[1] == f"shoal/{target}:{VERSION}"
    labels = stage(target)
    assert f'org.opencontainers.image.title="shoal-{target}"' in labels
    assert "org.opencontainers.image.description=" in labels
    assert f'org.opencontainers.image.version="{VERSION}"' in stage("runtime")


def test_images_local_builds_every_image() -> None:
    makefile = (ROOT / "docker" / "local" / "Makefile").read_text()
    [targets] = re.findall(r"^TARGETS := (.*)$", makefile, re.MULTILINE)
    assert set(targets.split()) == {CONTAINERS[name]["build"]["target"] for name in BUILT}
    assert re.findall(r"^VERSION := (.*)$", makefile, re.MULTILINE) == [VERSION]
    [libraries] = re.findall(r"^LIBRARIES +:= \$\(or \$\(SHOAL_LIBRARIES\),(.*)\)$", makefile, re.MULTILINE)
    assert CONTAINERS["raylet"]["build"]["args"]["LIBRARIES"] == f"${{SHOAL_LIBRARIES:-{libraries}}}"


@pytest.mark.parametrize("name", CONFIGS)
def test_the_command_is_the_entry_point(name: str) -> None:
    assert f'CMD ["python", "-m", "shoal_{name}"]' in stage(name)
    assert (ROOT / "services" / name / "src" / f"shoal_{name}" / "__main__.py").is_file()


@pytest.mark.parametrize("name", CONFIGS)
def test_every_variable_is_a_setting_and_no_required_one_is_missing(name: str) -> None:
    config = getattr(importlib.import_module(f"shoal_{name}.config"), CONFIGS[name])
    fields = {f"SHOAL_{name.upper()}_{field.name.upper()}": field for field in dataclasses.fields(config)}
    fields.pop(f"SHOAL_{name.upper()}_TOKEN")
    required = {
        variable
        for variable, field in fields.items()
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    variables = {variable for variable in CONTAINERS[name]["environment"] if variable.startswith("SHOAL_")}
    variables |= set(re.findall(r"\bSHOAL_[A-Z_]+(?==)", stage(name)))
    flags = re.findall(r"--([a-z-]+)", str(CONTAINERS[name].get("command", "")))
    variables |= {f"SHOAL_{name.upper()}_{flag.upper().replace('-', '_')}" for flag in flags}
    variables -= {"SHOAL_AUTH_TOKEN_PATH"}
    assert required <= variables <= set(fields)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_variable_for_tls_is_a_setting(name: str) -> None:
    config = getattr(importlib.import_module(f"shoal_{name}.config"), CONFIGS[name])
    fields = {f"SHOAL_{name.upper()}_{field.name.upper()}" for field in dataclasses.fields(config)}
    variables = set(SECURED[name]["environment"])
    assert set(VARIABLES) < variables <= fields | set(VARIABLES)
    # Whom it reaches, it reaches over TLS.
    for server in {"NATS_ADDRESS": "NATS_CA", "ETCD": "ETCD_CA", "S3_ENDPOINT": "S3_CA"}.items():
        reached, secured = (f"SHOAL_{name.upper()}_{setting}" for setting in server)
        assert (reached in CONTAINERS[name]["environment"]) == (secured in variables)


def test_every_container_has_a_certificate_of_its_own() -> None:
    assert set(SECURED) == set(CONTAINERS) - {"setup"}
    folders = {}
    for name, container in SECURED.items():
        for mount in container["volumes"]:
            assert mount["read_only"] and not mount["bind"]["create_host_path"]
            assert mount["target"].startswith("/run/tls")
            match = re.fullmatch(r"\$\{SHOAL_CERTS:-\./docker/certs\}/([a-z0-9-]+)(/[a-z]+\.pem)?", mount["source"])
            assert match, mount["source"]
            folders[name] = match[1]
    [made] = re.findall('^services="(.*)"$', (ROOT / "docker" / "make-certs").read_text(), re.MULTILINE)
    assert folders == {**{name: name for name in SECURED}, "driver": "client"}
    assert set(folders.values()) == set(made.split())


@pytest.mark.parametrize("name", CONFIGS)
def test_the_image_says_how_to_ask_for_its_health(name: str) -> None:
    config = getattr(importlib.import_module(f"shoal_{name}.config"), CONFIGS[name])
    [port] = [str(field.default) for field in dataclasses.fields(config) if field.name == "port"]
    set_here = dict(re.findall(r"\bSHOAL_[A-Z]+_((?:HEALTH_)?PORT)=(\d+)", stage(name)))
    port = set_here.get("HEALTH_PORT", set_here.get("PORT", port))
    check = f'CMD ["python", "-m", "shoal_common.service.healthcheck", "127.0.0.1:{port}"]'
    if name == "dashboard":  # it speaks HTTP
        check = f'CMD ["python", "-m", "shoal_dashboard.healthcheck", "{port}"]'
    assert re.findall(r"^HEALTHCHECK .* (CMD .*)$", stage(name), re.MULTILINE) == [check]


@pytest.mark.parametrize("name", [name for name, container in CONTAINERS.items() if "build" not in container])
def test_servers_of_others_are_asked_for_their_health(name: str) -> None:
    assert CONTAINERS[name]["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")


def test_a_service_gets_its_own_distributions_and_no_other_service() -> None:
    for name in CONFIGS:
        [ours] = re.findall(rf"install {name} (.*?)(?: \\)?$", stage("packages"), re.MULTILINE)
        assert [word for word in ours.split() if word.removeprefix("shoal-") in CONFIGS] == [f"shoal-{name}"]
        assert f"COPY --from=packages /packages/{name} /opt/shoal" in stage(name)


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_has_no_rights(name: str) -> None:
    container = CONTAINERS[name]
    assert container["user"] == "1000:1000"
    assert container["cap_drop"] == ["ALL"]
    assert container["read_only"] is True
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "devices", "pid", "ipc"} & set(container)


def test_images_do_not_run_as_root() -> None:
    assert "USER 1000" in stage("runtime")
    assert [line for line in DOCKERFILE.splitlines() if line.startswith("USER")][-1] == "USER 1000"


def test_ports_are_published_to_this_machine_alone() -> None:
    published = [port for container in CONTAINERS.values() for port in container.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_secrets_are_in_no_environment_and_on_no_command_line() -> None:
    for container in CONTAINERS.values():
        for variable, value in container.get("environment", {}).items():
            if re.search("TOKEN|PASSWORD|SECRET|ROOT_USER", variable):
                assert value.startswith("/run/"), f"{variable} is not the name of a file"
        assert not re.search("token|password", str(container.get("command", "")), re.IGNORECASE)


def test_only_the_gcs_reaches_etcd() -> None:
    members = {
        network: {name for name, container in CONTAINERS.items() if network in container.get("networks", [])}
        for network in COMPOSE["networks"]
    }
    assert members["etcd"] == {"etcd-1", "etcd-2", "gcs"}
    assert COMPOSE["networks"]["etcd"] == {"internal": True}


def test_secrets_are_mounted_where_they_are_needed_and_read_only() -> None:
    holders: dict[str, set[str]] = {"token": set(), "minio-credentials": set()}
    for name, container in CONTAINERS.items():
        for volume, _, target in (mount.partition(":") for mount in container.get("volumes", [])):
            if volume in holders:
                holders[volume].add(name)
                assert name == "setup" or target.endswith(":ro")
    assert holders["minio-credentials"] == {"setup", "minio", "objectstore"}


def test_the_build_context_has_what_the_dockerfile_copies() -> None:
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignore[0] == "*"
    copied = {
        path.partition("/")[0]
        for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
        for path in line.split()
    }
    assert {f"!{path}" for path in copied} <= set(ignore)


def test_libraries_of_a_distribution_are_those_of_ours_that_it_needs_too() -> None:
    command = [sys.executable, ROOT / "docker" / "requirements.py", "services/gcs", "common[deploy]"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    names = {re.split("[<>=~!]", line)[0] for line in lines}
    assert {"grpcio", "msgspec", "aetcd", "nats-py"} <= names
    assert not any(name.startswith("shoal") for name in names)


@pytest.mark.skipif(not Path("/usr/bin/openssl").exists(), reason="openssl is not installed")
def test_trial_certificates_fit_together_and_stay(tmp_path: Path) -> None:
    make = [ROOT / "docker" / "make-certs", tmp_path / "certs"]
    subprocess.run(make, check=True, capture_output=True)
    folder = tmp_path / "certs"
    services = sorted(path.name for path in folder.iterdir() if path.is_dir())
    assert set(services) >= {*CONFIGS, "etcd-1", "etcd-2", "nats", "minio", "client"}
    assert folder.stat().st_mode & 0o777 == 0o700
    keys = {}
    for service in services:
        files = [folder / service / name for name in ("ca.pem", "cert.pem", "key.pem")]
        assert Tls.from_environ(dict(zip(VARIABLES, map(str, files), strict=True))) is not None
        keys[service] = files[2].read_text()
    assert len(set(keys.values())) == len(services)
    subprocess.run(make, check=True, capture_output=True)
    assert {service: (folder / service / "key.pem").read_text() for service in services} == keys
