"""Runtime environments: what a field may hold, what a child inherits, and the document that travels. Pure.

An environment is a dictionary by field, as users write it. What its worker processes need of it travels as a
*document*: JSON with sorted keys, "" for the environment of a job that names none. Documents that have the same *key*
mean the same processes, whatever their ``config`` says of how long to try.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

#: A document has at most so many bytes: it travels with each first demand for a worker.
MAX_BYTES = 256 * 1024

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))", re.ASCII)


def _env_vars(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise TypeError(f"runtime_env['env_vars'] must be of type Dict[str, str], got {type(value)}")
    for name, text in value.items():
        if not isinstance(name, str):
            raise TypeError(
                f"runtime_env['env_vars'] must be of type Dict[str, str], but the key {name} is of type {type(name)}"
            )
        if not isinstance(text, str):
            raise TypeError(
                f"runtime_env['env_vars'] must be of type Dict[str, str], but the value {text} is of type {type(text)}"
            )
        if not name or "=" in name or "\0" in name or "\0" in text:
            raise ValueError(f"runtime_env['env_vars'] has {name!r}, which no environment variable can be")
    return dict(value)


#: What makes the value to keep of each field that there is. Raises: TypeError, ValueError.
FIELDS: dict[str, Callable[[Any], Any]] = {
    "env_vars": _env_vars,
}

_MODULES = "put modules next to the program or into JobConfig(code_search_path=...)"
_PACKAGES = "install packages on the nodes"
_PROCESS = "start the node with what its workers need"
#: Fields of Ray's that are not there: what to do instead.
NOT_IMPLEMENTED: dict[str, str] = {
    "working_dir": _MODULES,
    "py_modules": _MODULES,
    "excludes": _MODULES,
    "pip": _PACKAGES,
    "uv": _PACKAGES,
    "conda": _PACKAGES,
    "container": _PROCESS,
    "image_uri": _PROCESS,
    "py_executable": _PROCESS,
    "worker_process_setup_hook": "call it in the function or in the actor's constructor",
    "config": "leave it out",
    "nsight": _PROCESS,
    "rocprof_sys": _PROCESS,
    "mpi": _PROCESS,
    "java_jars": "there are no Java workers",
}


def validate_field(name: str, value: Any) -> Any:
    """The value to keep. Raises: TypeError, ValueError."""
    if name in NOT_IMPLEMENTED:
        raise ValueError(f"runtime_env[{name!r}] is not implemented by Shoal: {NOT_IMPLEMENTED[name]}.")
    if name not in FIELDS:
        raise ValueError(f"runtime_env has an unknown field {name!r}. There are: {', '.join(FIELDS)}.")
    return FIELDS[name](value)


def validate(given: Mapping[str, Any]) -> dict[str, Any]:
    """What to keep of an environment as users write it; a field that is None was not given.

    Raises: TypeError, ValueError, UnicodeEncodeError for text that cannot travel.
    """
    if not isinstance(given, Mapping):
        raise TypeError(f"runtime_env must be a dictionary, got {type(given)}")
    return {name: validate_field(name, value) for name, value in given.items() if value is not None}


def merged(parent: Mapping[str, Any], child: Mapping[str, Any]) -> dict[str, Any]:
    """What a task or an actor runs in whose options say ``child``, started by what runs in ``parent``: the child's
    fields in place of the parent's, except that environment variables are merged one by one."""
    both = {**parent, **child}
    if parent.get("env_vars") and child.get("env_vars"):
        both["env_vars"] = {**parent["env_vars"], **child["env_vars"]}
    return both


def encode(environment: Mapping[str, Any]) -> str:
    """The document. Raises: ValueError (too large), UnicodeEncodeError."""
    kept = {name: value for name, value in environment.items() if value not in ({}, [], None)}
    if not kept:
        return ""
    document = json.dumps(kept, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    if len(document.encode()) > MAX_BYTES:
        raise ValueError(f"A runtime_env must have at most {MAX_BYTES} bytes, and this one has {len(document)}.")
    return document


def decode(document: str) -> dict[str, Any]:
    """The environment by field."""
    environment: dict[str, Any] = json.loads(document) if document else {}
    return environment


@functools.lru_cache(maxsize=1024)
def key(document: str) -> str:
    """Of the processes that it means, in hexadecimal; "" for ""."""
    environment = decode(document)
    environment.pop("config", None)
    return hashlib.sha256(encode(environment).encode()).hexdigest()[:32] if environment else ""


def expanded(variables: Mapping[str, str], surroundings: Mapping[str, str]) -> dict[str, str]:
    """Environment variables with what ``surroundings`` and those before them have in place of ``${NAME}`` and
    ``$NAME``; ``${NAME}`` becomes nothing where there is no such variable, ``$NAME`` stays."""
    known = dict(surroundings)
    made: dict[str, str] = {}
    for name, text in variables.items():
        made[name] = known[name] = _VARIABLE.sub(lambda match: _value(match, known), text)
    return made


def _value(match: re.Match[str], known: Mapping[str, str]) -> str:
    braced, bare = match.groups()
    return known.get(braced, "") if braced else known.get(bare, match.group())
