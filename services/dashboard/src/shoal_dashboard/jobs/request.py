"""What somebody hands in, checked: the body of ``POST /api/jobs/`` becomes a `JobRequest`. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shoal_common.placement import runtime_env

MAX_ENTRYPOINT_LENGTH = 100_000
MAX_ID_LENGTH = 256
_NUMBERS = ("entrypoint_num_cpus", "entrypoint_num_gpus", "entrypoint_memory")
_FIELDS = (
    "entrypoint",
    "submission_id",
    "job_id",
    "runtime_env",
    "metadata",
    *_NUMBERS,
    "entrypoint_resources",
    "entrypoint_label_selector",
    "priority",
    "max_restarts",
)
#: Fields of an environment that name files of the client, unless they are URIs.
_FILES = ("working_dir", "py_modules")


class BadRequest(ValueError):
    """The text says which field, and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class JobRequest:
    submission_id: str
    priority: int
    max_restarts: int
    #: The rest: ``entrypoint``, ``runtime_env``, ``metadata`` and what the entrypoint needs; those that are not given
    #: are left out.
    document: Mapping[str, Any]

    def encoded(self) -> bytes:
        return json.dumps(self.document).encode()


def parse(body: bytes, new_id: str) -> JobRequest:
    """``new_id``: of the submission, when the body names none. Raises: BadRequest."""
    try:
        given = json.loads(body)
    except ValueError as error:
        raise BadRequest(f"the body is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise BadRequest("the body must be a JSON object")
    _check_told_again(given)
    if unknown := sorted(given.keys() - set(_FIELDS)):
        raise BadRequest(f"there is no field {', '.join(map(repr, unknown))}; there are: {', '.join(_FIELDS)}")
    given = {name: value for name, value in given.items() if value is not None}
    named = [given.pop(name, "") for name in ("submission_id", "job_id")]
    if not all(isinstance(each, str) and each.isprintable() and len(each) <= MAX_ID_LENGTH for each in named):
        raise BadRequest(f"submission_id must be a string of at most {MAX_ID_LENGTH} printable characters")
    if any("/" in each or each in (".", "..") for each in named):
        raise BadRequest("submission_id must be what can stand in a path: without '/', and neither '.' nor '..'")
    submission_id = named[0] or named[1] or new_id
    priority, max_restarts = _whole(given, "priority"), _whole(given, "max_restarts")
    if max_restarts < -1:
        raise BadRequest("max_restarts must be a number of restarts, or -1: for ever")
    _check(given)
    return JobRequest(submission_id, priority, max_restarts, given)


def _check_told_again(given: dict[str, Any]) -> None:
    """Python's JSON reads more than any answer can have: halves of surrogate pairs, and numbers that are none."""
    try:
        json.dumps(given, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start])
        raise BadRequest(f"the body is no text: {half} is one half of a surrogate pair, without the other") from None
    except ValueError as error:
        raise BadRequest(f"the body is not JSON, which has neither NaN nor Infinity: {error}") from None


def _whole(given: dict[str, Any], name: str) -> int:
    value = given.pop(name, 0)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 2**63:
        raise BadRequest(f"{name} must be a whole number, not {value!r}")
    return value


def _check(given: dict[str, Any]) -> None:
    entrypoint = given.get("entrypoint")
    if not isinstance(entrypoint, str) or not entrypoint.strip():
        raise BadRequest("entrypoint must be a string, the command that is to be run")
    if len(entrypoint) > MAX_ENTRYPOINT_LENGTH or "\0" in entrypoint:
        raise BadRequest(f"entrypoint must have at most {MAX_ENTRYPOINT_LENGTH} characters, none of them a null")
    for name in _NUMBERS:
        if name in given:
            given[name] = _amount(name, given[name])
    resources = given.get("entrypoint_resources", {})
    if not isinstance(resources, dict):
        raise BadRequest("entrypoint_resources must be an object of amounts by name")
    given["entrypoint_resources"] = {
        key: _amount(f"entrypoint_resources[{key!r}]", value) for key, value in resources.items()
    }
    for name in ("metadata", "entrypoint_label_selector"):
        value = given.get(name, {})
        if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
            raise BadRequest(f"{name} must be an object of strings by name")
    environment = given.get("runtime_env", {})
    if not isinstance(environment, dict):
        raise BadRequest("runtime_env must be an object")
    given["runtime_env"] = _environment(environment)


def _amount(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise BadRequest(f"{name} must be a number, 0 or more, not {value!r}")
    return value


def _environment(given: dict[str, Any]) -> dict[str, Any]:
    for name in _FILES:
        for location in [given[name]] if isinstance(given.get(name), str) else given.get(name) or ():
            if isinstance(location, str) and "://" not in location:
                raise BadRequest(
                    f"runtime_env[{name!r}] names {location!r}, which is a path of the client's machine: upload it "
                    "(clients do that), or give a URI"
                )
    # Ray's clients send these along; the command line's own environment is none of the cluster's business.
    kept = {name: value for name, value in given.items() if not name.startswith("_ray_")}
    try:
        # Packages by Ray's names are looked up when they are there.
        return runtime_env.validate({name: value for name, value in kept.items() if name not in _FILES}) | {
            name: kept[name] for name in _FILES if name in kept
        }
    except (ValueError, TypeError) as error:
        raise BadRequest(f"runtime_env: {error}") from None
