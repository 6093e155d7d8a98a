from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import shoal.runtime_env
from shoal import _context, _current
from shoal._api.environments import document_of
from shoal.runtime_env import RuntimeEnv, RuntimeEnvConfig, RuntimeEnvPlugin


def test_it_is_a_dictionary_that_checks_itself() -> None:
    environment = RuntimeEnv(env_vars={"A": "1"})
    assert environment == {"env_vars": {"A": "1"}} == environment.to_dict()
    assert environment.env_vars() == {"A": "1"} and RuntimeEnv().env_vars() == {}
    environment["env_vars"] = {"B": "2"}
    with pytest.raises(TypeError, match="the value 1"):
        environment["env_vars"] = {"B": 1}
    with pytest.raises(ValueError, match="unknown field 'nonsense'"):
        RuntimeEnv(nonsense=1)
    assert environment == {"env_vars": {"B": "2"}}


def test_a_file_of_requirements(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("# what it needs\na==1\n\n  b\n")
    environment = RuntimeEnv(pip=str(tmp_path / "requirements.txt"))
    assert environment.pip_config() == {"packages": ["a==1", "b"], "pip_check": False}
    assert environment.has_pip() and not environment.has_uv()
    with pytest.raises(ValueError, match=r"nowhere\.txt is not a valid file"):
        RuntimeEnv(uv="nowhere.txt")


def test_a_file_of_conda(tmp_path: Path) -> None:
    (tmp_path / "environment.yml").write_text("dependencies: [numpy]")
    environment = RuntimeEnv(conda=str(tmp_path / "environment.yml"))
    assert environment["conda"] == {"yaml": "dependencies: [numpy]"}
    environment["conda"] = "named"
    assert environment == {"conda": "named"}
    with pytest.raises(ValueError, match=r"nowhere\.yaml is not a valid file"):
        RuntimeEnv(conda="nowhere.yaml")


def test_a_field_of_two_names() -> None:
    environment = RuntimeEnv(_nsight="default")
    environment["_nsight"] = {"t": "cuda"}
    assert environment == {"nsight": {"t": "cuda"}}


def test_config() -> None:
    assert RuntimeEnvConfig() == {"setup_timeout_seconds": 600, "eager_install": True}
    environment = RuntimeEnv(config=RuntimeEnvConfig(setup_timeout_seconds=5))
    assert environment["config"]["setup_timeout_seconds"] == 5
    with pytest.raises(ValueError, match="greater than zero"):
        RuntimeEnvConfig(setup_timeout_seconds=-2)


def test_fields_of_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    class Plugin(RuntimeEnvPlugin):
        @staticmethod
        def validate(runtime_env_dict: Mapping[str, Any]) -> None:
            if runtime_env_dict["things"] != ["a"]:
                raise ValueError("only a")

    monkeypatch.setattr(shoal.runtime_env, "plugins", lambda: {"things": Plugin()})
    assert RuntimeEnv(things=("a",)) == {"things": ["a"]}, "as JSON has it"
    with pytest.raises(ValueError, match="only a"):
        RuntimeEnv(things=["b"])
    with pytest.raises(ValueError, match="unknown field 'others'"):
        RuntimeEnv(others=1)


def test_it_travels() -> None:
    environment = RuntimeEnv(env_vars={"B": "2", "A": "1"})
    assert environment.serialize() == '{"env_vars": {"A": "1", "B": "2"}}'
    assert RuntimeEnv.deserialize(environment.serialize()) == environment
    copy = pickle.loads(pickle.dumps(environment))
    assert copy == environment and type(copy) is RuntimeEnv


def test_what_is_submitted_inherits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_current, "connected", lambda: None)  # nothing is to be uploaded
    assert document_of(None) == document_of({}) == ""
    monkeypatch.setattr(_context.process, "runtime_env", document_of({"env_vars": {"A": "1"}}))
    assert document_of(None) == '{"env_vars":{"A":"1"}}'
    assert document_of({"env_vars": {"B": "2"}}) == '{"env_vars":{"A":"1","B":"2"}}'


def test_variables_of_ray_as_fields_are_left_out_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert RuntimeEnv(RAY_ENABLE_X="1", env_vars={"A": "1"}) == {"env_vars": {"A": "1"}}
    assert [record.message for record in caplog.records] == [
        "runtime_env has no field RAY_ENABLE_X, which is left out; environment variables go into env_vars"
    ]
