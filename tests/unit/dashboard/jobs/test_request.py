"""What is handed in, checked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shoal_dashboard.jobs.request import BadRequest, parse


def parsed(**fields: Any) -> Any:
    return parse(json.dumps({"entrypoint": "python main.py", **fields}).encode(), "new")


def test_what_is_not_given_is_left_out() -> None:
    request = parsed(runtime_env={"env_vars": {"A": "1"}}, entrypoint_num_gpus=None, priority=3)
    assert request.submission_id == "new"
    assert (request.priority, request.max_restarts) == (3, 0)
    assert json.loads(request.encoded()) == {
        "entrypoint": "python main.py",
        "runtime_env": {"env_vars": {"A": "1"}},
        "entrypoint_resources": {},
    }


def test_an_id_of_its_own() -> None:
    assert parsed(submission_id="mine").submission_id == "mine"
    assert parsed(job_id="old name").submission_id == "old name"


def test_any_text_is_told_again() -> None:
    emoji = "echo \U0001f600 ü"  # escaped as a pair
    assert parsed(entrypoint=emoji, submission_id="ü 1").document["entrypoint"] == emoji


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"entrypoint": 3}, "entrypoint must be"),
        ({"entrypoint": "  "}, "entrypoint must be"),
        ({"entrypoint": "a\0b"}, "null"),
        ({"submission_id": 3}, "submission_id must be"),
        ({"submission_id": "a\nb"}, "printable"),
        ({"submission_id": "x" * 300}, "256"),
        ({"submission_id": "a/b ü"}, "path"),
        ({"submission_id": ".."}, "path"),
        ({"job_id": "a/b"}, "path"),
        ({"entrypoint": "echo \ud83d"}, r"'\\ud83d' is one half of a surrogate pair"),
        ({"submission_id": "\ud83d"}, "surrogate"),
        ({"metadata": {"a": "\ude00"}}, "surrogate"),
        ({"metadata": {"\ude00": "a"}}, "surrogate"),
        ({"runtime_env": {"env_vars": {"A": "\ud83d"}}}, "surrogate"),
        ({"runtime_env": {"config": {"setup_timeout_seconds": float("nan")}}}, "neither NaN"),
        ({"priority": 1.5}, "priority must be a whole number"),
        ({"priority": True}, "priority must be a whole number"),
        ({"max_restarts": -2}, "max_restarts must be"),
        ({"entrypoint_memory": "much"}, "entrypoint_memory must be"),
        ({"entrypoint_resources": {"a": -1}}, r"entrypoint_resources\['a'\] must be"),
        ({"entrypoint_resources": []}, "entrypoint_resources must be"),
        ({"entrypoint_label_selector": {"a": 1}}, "entrypoint_label_selector must be"),
        ({"runtime_env": []}, "runtime_env must be"),
        ({"runtime_env": {"py_modules": ["here"]}}, "path of the client's machine"),
        ({"runtime_env": {"env_vars": {"A": 1}}}, "env_vars"),
        ({"what": 1}, "no field 'what'"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        parsed(**fields)
