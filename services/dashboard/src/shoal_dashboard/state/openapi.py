"""The OpenAPI document: the state interface, made of the columns of its rows, what looks into processes, and what
others describe of theirs. Pure.

Source: OpenAPI Specification 3.1.0.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from shoal_common.state_rows import DEFAULT_LIMIT, MAX_LIMIT, RESOURCES, StateRow
from shoal_dashboard.logs.openapi import list_parameters
from shoal_dashboard.profiles.rendering import MEDIA_TYPES
from shoal_dashboard.profiles.request import MAX_SECONDS, SECONDS, Form

Schema = dict[str, Any]

_TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "dict": "object", "list": "array"}
_SUMMARIZED = ("actors", "objects", "tasks")
#: Status → when.
_REFUSALS = {
    "400": "a filter, a limit or the like makes no sense; `msg` says which and what would",
    "401": "no token: `Authorization: Bearer <token>`",
    "403": "a wrong token",
    "501": "what is asked for is not kept here",
    "503": "the cluster does not answer; `msg` says why",
}
_NOT_LOOKED = {
    "400": "a parameter makes no sense; the text says which and what would",
    "401": _REFUSALS["401"],
    "403": _REFUSALS["403"],
    "404": "there is no such process, or the task does not run",
    "429": "somebody looks into it already, or too many are looked into",
    "501": "what is needed for it is not there; the text says what to do",
    "503": "the cluster or the node does not answer",
}
#: Path → what it tells, and of a process or of what runs a task.
_PROFILES = {
    "/worker/traceback": ("stacks", "process"),
    "/worker/cpu_profile": ("cpu", "process"),
    "/task/traceback": ("stacks", "task"),
    "/task/cpu_profile": ("cpu", "task"),
    "/memory_profile": ("memory", "process"),
}


def document(version: str, paths_of_others: Schema) -> Schema:
    """``version``: Shoal's. ``paths_of_others``: what is described elsewhere."""
    paths = {f"/api/v0/{name}": {"get": _list(name, kind)} for name, kind in RESOURCES.items()}
    paths |= {f"/api/v0/{name}/summarize": {"get": _summary(name)} for name in _SUMMARIZED}
    paths |= {path: {"get": _profile(path, *which)} for path, which in _PROFILES.items()}
    paths["/api/v0/logs"] = {"get": _log_files()}
    paths |= paths_of_others
    return {
        "openapi": "3.1.0",
        "info": {"title": "Shoal's dashboard", "version": version},
        # Relative to this document, which may lie behind any path.
        "servers": [{"url": "."}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {kind.__name__: _row(kind) for kind in RESOURCES.values()},
        },
    }


def _list(name: str, kind: type[StateRow]) -> Schema:
    rows = {"type": "array", "items": {"$ref": f"#/components/schemas/{kind.__name__}"}}
    listing = {
        "type": "object",
        "required": ["total", "num_after_truncation", "num_filtered", "result", "partial_failure_warning", "warnings"],
        "properties": {
            "total": {"type": "integer"},
            "num_after_truncation": {"type": "integer"},
            "num_filtered": {"type": "integer"},
            "result": rows,
            "partial_failure_warning": {"type": "string"},
            "warnings": {"type": ["array", "null"], "items": {"type": "string"}},
        },
    }
    columns = {"type": "array", "items": {"enum": list(kind.filterable_columns())}}
    return {
        "operationId": f"list_{name}",
        "summary": f"Rows of {name.replace('_', ' ')}: those that meet all filters, and how many there are.",
        "parameters": [
            _parameter("limit", {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT}),
            _parameter("detail", {"type": "boolean", "default": False}),
            _parameter("filter_keys", columns),
            _parameter("filter_predicates", {"type": "array", "items": {"enum": ["=", "!="]}}),
            _parameter("filter_values", {"type": "array", "items": {"type": "string"}}),
            *_after(name),
        ],
        "responses": _responses(listing),
    }


def _after(name: str) -> list[Schema]:
    """A report of a node that the answer is to know of."""
    return [_parameter("after", {"type": "string"})] if name == "tasks" else []


def _summary(name: str) -> Schema:
    by = [_parameter("summary_by", {"enum": ["func_name", "lineage"]}), *_after(name)] if name == "tasks" else []
    return {
        "operationId": f"summarize_{name}",
        "summary": f"How many {name} there are, by kind and state.",
        "parameters": by,
        "responses": _responses({"type": "object", "required": ["total", "result"]}),
    }


def _log_files() -> Schema:
    return {
        "operationId": "list_logs",
        "summary": "Names of the log files of a node, by kind.",
        "parameters": list_parameters(),
        "responses": _responses({"type": "object", "additionalProperties": {"type": "array"}}),
    }


def _profile(path: str, kind: str, of: str) -> Schema:
    flag = {"enum": ["0", "1"]}
    of_task = [
        _parameter("task_id", {"type": "string", "pattern": "^[0-9a-f]{40}$"}, required=True),
        _parameter("attempt_number", {"type": "integer", "minimum": 0}),
    ]
    of_process = [
        _parameter("pid", {"type": "integer", "minimum": 1, "maximum": 9_999_999_999}, required=True),
        _parameter("node_id", {"type": "string"}),
        _parameter("ip", {"type": "string"}),
    ]
    parameters = [*(of_task if of == "task" else of_process), _parameter("native", flag)]
    if kind != "stacks":
        parameters += [
            _parameter("duration", {"type": "integer", "minimum": 1, "maximum": MAX_SECONDS, "default": SECONDS}),
            _parameter("format", {"enum": list(Form)}),
            _parameter("idle" if kind == "cpu" else "leaks", flag),
        ]
    media = ["text/plain"] if kind == "stacks" else list(MEDIA_TYPES.values())
    text = {"text/plain": {"schema": {"type": "string"}}}
    return {
        "operationId": path.strip("/").replace("/", "_"),
        "summary": f"Looks into a {of}'s process: {kind}.",
        "parameters": parameters,
        "responses": {
            "200": {"description": "what there is", "content": {each: {} for each in media}},
            **{status: {"description": when, "content": text} for status, when in _NOT_LOOKED.items()},
        },
    }


def _parameter(name: str, schema: Schema, *, required: bool = False) -> Schema:
    return {"name": name, "in": "query", "required": required, "schema": schema}


def _responses(result: Schema) -> Schema:
    def envelope(inner: Schema, succeeded: bool) -> Schema:
        return {
            "type": "object",
            "required": ["result", "msg", "data"],
            "properties": {
                "result": {"const": succeeded},
                "msg": {"type": "string"},
                "data": {"type": "object", "properties": {"result": inner}},
            },
        }

    def json(schema: Schema) -> Schema:
        return {"application/json": {"schema": schema}}

    answers: Schema = {"200": {"description": "what there is", "content": json(envelope(result, True))}}
    for status, when in _REFUSALS.items():
        content = {"text/plain": {"schema": {"type": "string"}}}
        if status not in ("401", "403"):
            content |= json(envelope({"type": "null"}, False))
        answers[status] = {"description": when, "content": content}
    return answers


def _row(kind: type[StateRow]) -> Schema:
    properties = {field.name: _type(str(field.type)) for field in dataclasses.fields(kind)}
    return {
        "type": "object",
        "required": list(kind.columns(detail=False)),
        "properties": properties,
        "additionalProperties": False,
    }


def _type(written: str) -> Schema:
    base = written.removesuffix(" | None")
    name = _TYPES[base.partition("[")[0]]
    return {"type": [name, "null"] if base != written else name}
