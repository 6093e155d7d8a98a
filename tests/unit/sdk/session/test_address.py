from __future__ import annotations

import pytest

from shoal import exceptions
from shoal._launch.cluster_address import ClusterAddress
from shoal._session import address

RUNNING = ClusterAddress("10.0.0.1:1", "", "", "", "its token")


@pytest.mark.parametrize(
    ("given", "variable", "running", "target"),
    [
        (None, None, False, ""),
        (None, None, True, "auto"),
        (None, "h:1", True, "h:1"),
        (None, "local", True, ""),
        (None, "auto", False, "auto"),
        ("local", "h:1", True, ""),
        ("auto", None, False, "auto"),
        ("auto", "h:1", True, "h:1"),
        ("auto", "local", False, "auto"),
        ("g:2", "h:1", True, "g:2"),
        ("", "h:1", False, ""),
    ],
)
def test_what_init_connects_to(
    given: str | None, variable: str | None, running: bool, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SHOAL_ADDRESS", raising=False)
    if variable is not None:
        monkeypatch.setenv("SHOAL_ADDRESS", variable)
    monkeypatch.setattr(address.local_nodes, "running_clusters", lambda: [RUNNING] if running else [])
    assert address.target_of(given) == target


@pytest.mark.parametrize(
    ("given", "variable", "meant"),
    [("g:2", "h:1", "g:2"), (None, "h:1", "h:1"), ("auto", "h:1", "h:1"), (None, "auto", "e:1"), (None, None, "e:1")],
)
def test_whoever_is_no_driver_finds_an_embedded_cluster_too(
    given: str | None, variable: str | None, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SHOAL_ADDRESS", raising=False)
    if variable is not None:
        monkeypatch.setenv("SHOAL_ADDRESS", variable)
    monkeypatch.setattr(address.local_nodes, "running_clusters", list)
    monkeypatch.setattr(address.embedded, "running_clusters", lambda: [ClusterAddress("e:1", "", "", "", "")])
    assert address.gcs_meant(given) == meant


def test_what_is_no_cluster_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "clusters_here", list)
    monkeypatch.delenv("SHOAL_ADDRESS", raising=False)
    with pytest.raises(ConnectionError, match="no cluster runs on this machine"):
        address.gcs_meant(None)
    with pytest.raises(ValueError, match="is a gateway"):
        address.gcs_meant("shoal://h:1")
    with pytest.raises(ValueError, match="not host:port of a GCS"):
        address.gcs_meant("local")


def test_the_token_of_the_environment_comes_first_then_this_machines_then_the_files(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "token"
    path.write_text("of the file")
    monkeypatch.setattr(address, "clusters_here", lambda: [RUNNING])
    monkeypatch.setenv("SHOAL_AUTH_TOKEN_PATH", str(path))
    monkeypatch.delenv("SHOAL_AUTH_TOKEN", raising=False)
    assert address.token_for(RUNNING.gcs_address) == "its token"
    assert address.token_for("10.0.0.2:1") == "of the file"
    path.unlink()
    with pytest.raises(exceptions.AuthenticationError, match="no cluster token"):
        address.token_for("10.0.0.2:1")
    monkeypatch.setenv("SHOAL_AUTH_TOKEN", "of the environment")
    assert address.token_for(RUNNING.gcs_address) == "of the environment"


def test_without_any_token_the_cluster_is_asked_without(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "clusters_here", list)
    for name in ("SHOAL_AUTH_TOKEN", "SHOAL_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert address.token_for("10.0.0.2:1") == ""


def test_an_address_is_text() -> None:
    with pytest.raises(TypeError, match="address must be None or a str, not int"):
        address.target_of(5)  # type: ignore[arg-type]


@pytest.mark.parametrize("given", ["127.0.0.1:99999", "127.0.0.1:0", "h:1,h:x", "h", "http://h:1", ":6381", "h:"])
def test_an_address_that_cannot_be_one_is_not_tried(given: str) -> None:
    with pytest.raises(ValueError, match="Malformed address"):
        address.find_cluster(given)
    with pytest.raises(ValueError, match="not host:port of a GCS"):
        address.gcs_meant(given)
