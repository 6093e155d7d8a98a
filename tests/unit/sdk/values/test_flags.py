"""What counts as a flag, and which arguments are."""

from __future__ import annotations

import pytest

import shoal
from shoal import _current
from shoal._api.actor_handles import ActorHandle
from shoal._core.object_ref import ObjectRef
from shoal._values.flags import flag
from shoal.job_config import JobConfig
from shoal.util import list_named_actors


def test_true_and_false_are_flags() -> None:
    assert flag(True, "x") is True
    assert flag(False, "x") is False


@pytest.mark.parametrize("value", ["x", "", 1, 0, None])
def test_nothing_else_is(value: object) -> None:
    with pytest.raises(TypeError, match=f"force must be True or False, not {value!r}"):
        flag(value, "force")


@pytest.mark.parametrize("name", ["log_to_driver", "include_dashboard", "ignore_reinit_error", "configure_logging"])
def test_of_init(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} must be True or False, not 'x'"):
        shoal.init("local", **{name: "x"})
    assert not shoal.is_initialized()


@pytest.mark.parametrize("name", ["force", "recursive"])
def test_of_cancel(name: str) -> None:
    ref = ObjectRef.__new__(ObjectRef)
    with pytest.raises(TypeError, match=f"{name} must be True or False, not 'x'"):
        shoal.cancel(ref, **{name: "x"})


def test_of_wait_kill_and_the_names_of_actors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_current, "_current", object())  # nothing is asked of it
    with pytest.raises(TypeError, match="fetch_local must be True or False, not 'x'"):
        shoal.wait([], fetch_local="x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="all_namespaces must be True or False, not 'x'"):
        list_named_actors(all_namespaces="x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="no_restart must be True or False, not 'x'"):
        shoal.kill(ActorHandle.__new__(ActorHandle), no_restart="x")  # type: ignore[arg-type]


def test_of_a_jobs_configuration_also_when_it_is_set() -> None:
    config = JobConfig()
    with pytest.raises(TypeError, match="enable_task_events must be True or False"):
        config.enable_task_events = "x"  # type: ignore[assignment]
