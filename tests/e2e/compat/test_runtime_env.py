"""Runtime environments: of the job, of tasks and actors, and of what those start."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from e2e.compat.target import QUIET, ray, submodule

RuntimeEnv = submodule("runtime_env").RuntimeEnv


@pytest.fixture(scope="module", autouse=True)
def job() -> Iterator[None]:
    ray.init(num_cpus=4, runtime_env={"env_vars": {"OF_JOB": "job", "BOTH": "job"}}, **QUIET)
    yield
    ray.shutdown()


@ray.remote
def variables():
    return {name: os.environ.get(name) for name in ("OF_JOB", "BOTH", "OF_CHILD")}


def test_variables_of_the_job():
    assert ray.get(variables.remote()) == {"OF_JOB": "job", "BOTH": "job", "OF_CHILD": None}
    assert "OF_JOB" not in os.environ, "the driver's own process is as it was"
    assert ray.get_runtime_context().runtime_env == {"env_vars": {"OF_JOB": "job", "BOTH": "job"}}


def test_children_inherit_and_add():
    @ray.remote
    class Parent:
        def variables(self, **options):
            return ray.get(variables.options(**options).remote())

        def environment(self):
            return ray.get_runtime_context().runtime_env["env_vars"]

    parent = Parent.options(runtime_env=RuntimeEnv(env_vars={"BOTH": "actor"})).remote()
    assert ray.get(parent.environment.remote()) == {"OF_JOB": "job", "BOTH": "actor"}
    inherited = {"OF_JOB": "job", "BOTH": "actor", "OF_CHILD": None}
    assert ray.get(parent.variables.remote()) == inherited
    own = {"env_vars": {"OF_CHILD": "child"}}
    assert ray.get(parent.variables.remote(runtime_env=own)) == {**inherited, "OF_CHILD": "child"}


def test_variables_are_expanded_on_the_node():
    env = {"env_vars": {"OF_CHILD": "${OF_NOBODY}/x:${PATH}"}}
    assert ray.get(variables.options(runtime_env=env).remote())["OF_CHILD"] == "/x:" + os.environ["PATH"]


def test_a_worker_serves_one_environment():
    @ray.remote
    def process():
        return os.getpid(), os.environ.get("OF_CHILD")

    def run(value):
        return ray.get(process.options(runtime_env={"env_vars": {"OF_CHILD": value}}).remote())

    one, other = run("1"), run("2")
    assert (one[1], other[1]) == ("1", "2") and one[0] != other[0]


def test_a_hook_runs_in_each_worker_before_its_first_task():
    def hook():
        os.environ["OF_CHILD"] = "hook"

    env = {"worker_process_setup_hook": hook}
    assert ray.get(variables.options(runtime_env=env).remote())["OF_CHILD"] == "hook"


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"env_vars": {"A": 1}}, TypeError),
        ({"env_vars": {1: "A"}}, TypeError),
        ({"env_vars": "A=1"}, TypeError),
    ],
    ids=str,
)
def test_what_is_wrong_is_told_at_once(given, error):
    with pytest.raises(error):
        variables.options(runtime_env=given)
