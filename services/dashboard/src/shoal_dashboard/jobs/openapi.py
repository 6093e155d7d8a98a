"""What ``/api/jobs/`` and ``/api/packages/`` take and answer, for the OpenAPI document. Pure."""

from __future__ import annotations

from typing import Any

from shoal_common.states import SubmissionState
from shoal_dashboard.jobs.request import MAX_ENTRYPOINT_LENGTH, MAX_ID_LENGTH

Schema = dict[str, Any]

_STRING: Schema = {"type": "string"}
_STRINGS: Schema = {"type": "object", "additionalProperties": _STRING}
_AMOUNT: Schema = {"type": "number", "minimum": 0}
_WHOLE: Schema = {"type": "integer"}
_REFUSED = {
    "400": "what is asked for makes no sense; the text says why",
    "401": "no token: `Authorization: Bearer <token>`",
    "403": "a wrong token",
    "503": "the cluster does not answer; the text says why",
}
_NO_SUCH_JOB = {"404": "there is no such job"}


def _or_none(schema: Schema) -> Schema:
    return {**schema, "type": [schema["type"], "null"]}


_OPTIONS: Schema = {
    "submission_id": {"type": "string", "maxLength": MAX_ID_LENGTH},
    "job_id": {"type": "string", "maxLength": MAX_ID_LENGTH},
    "runtime_env": {"type": "object"},
    "metadata": _STRINGS,
    "entrypoint_num_cpus": _AMOUNT,
    "entrypoint_num_gpus": _AMOUNT,
    "entrypoint_memory": _AMOUNT,
    "entrypoint_resources": {"type": "object", "additionalProperties": _AMOUNT},
    "entrypoint_label_selector": _STRINGS,
    "priority": {**_WHOLE, "minimum": 1 - 2**63, "maximum": 2**63 - 1},
    "max_restarts": {**_WHOLE, "minimum": -1, "maximum": 2**63 - 1},
}
_REQUEST: Schema = {
    "type": "object",
    "required": ["entrypoint"],
    "additionalProperties": False,
    "properties": {
        "entrypoint": {"type": "string", "minLength": 1, "maxLength": MAX_ENTRYPOINT_LENGTH},
        **{name: _or_none(schema) for name, schema in _OPTIONS.items()},
    },
}


_DETAILS: Schema = {
    "type": "object",
    "required": ["type", "job_id", "submission_id", "status", "entrypoint"],
    "properties": {
        "type": {"enum": ["SUBMISSION", "DRIVER"]},
        "job_id": _or_none(_STRING),
        "submission_id": _or_none(_STRING),
        "driver_info": _or_none(_STRINGS),
        "status": {"enum": [state.name for state in SubmissionState]},
        "entrypoint": _STRING,
        "message": _or_none(_STRING),
        "error_type": _or_none(_STRING),
        "start_time": _WHOLE,
        "end_time": _or_none(_WHOLE),
        "metadata": _STRINGS,
        "runtime_env": {"type": "object"},
        "driver_agent_http_address": _or_none(_STRING),
        "driver_node_id": _or_none(_STRING),
        "driver_exit_code": _or_none(_WHOLE),
        "attempt": _WHOLE,
        "max_restarts": _WHOLE,
        "priority": _WHOLE,
    },
}


def paths() -> Schema:
    one, job = "/api/jobs/{job_id}", [_in_path("job_id", {"type": "string", "minLength": 1})]
    numbers = [
        {"name": "offset", "in": "query", "schema": {**_WHOLE, "minimum": 0, "maximum": 2**60 - 1, "default": 0}},
        {"name": "limit", "in": "query", "schema": {**_WHOLE, "minimum": 1}},
        {"name": "wait_s", "in": "query", "schema": {"type": "number", "minimum": 0, "default": 0}},
    ]
    piece = _object(start=_WHOLE, end=_WHOLE, data={"type": "string", "pattern": "^([0-9a-f]{2})*$"}, ended=_flag())
    submitted = _answers(
        _object(job_id=_STRING, submission_id=_STRING),
        {"429": "too many jobs wait", "500": "there is a job with this submission_id already"},
    )
    body = {"required": True, "content": {"application/json": {"schema": _REQUEST}}}
    listed = _answers({"type": "array", "items": _DETAILS}, {})
    about = "The output of a job that was submitted"
    return {
        "/api/jobs/": {
            "get": {"operationId": "list_submitted", "summary": "All jobs, the newest first.", "responses": listed},
            "post": {
                "operationId": "submit_job",
                "summary": "Runs a command on a node of the cluster.",
                "requestBody": body,
                "responses": submitted,
            },
        },
        one: {
            "get": _of_job("get_job", "One job.", job, _DETAILS),
            "delete": _of_job("delete_job", "Forgets a job that has ended.", job, _object(deleted=_flag())),
        },
        f"{one}/stop": {"post": _of_job("stop_job", "Ends all that it runs.", job, _object(stopped=_flag()))},
        f"{one}/logs": {"get": _of_job("job_logs", f"{about}, as far as it is kept.", job, _object(logs=_STRING))},
        f"{one}/logs/piece": {
            "get": _of_job("job_logs_piece", f"{about}, from there on, in hexadecimal.", [*job, *numbers], piece)
        },
        "/api/packages/{protocol}/{name}": {
            "get": {
                "operationId": "package_exists",
                "summary": "Whether somebody has uploaded it.",
                "parameters": _package(),
                "responses": _answers(None, {"404": "nobody has"}),
            },
            "put": {
                "operationId": "upload_package",
                "summary": "Keeps a zip archive for the runtime environments of jobs.",
                "parameters": _package(),
                "requestBody": {"required": True, "content": {"application/octet-stream": {}}},
                "responses": _answers(None, {"413": "it is too large"}),
            },
        },
    }


def _of_job(name: str, summary: str, parameters: list[Schema], answer: Schema) -> Schema:
    return {
        "operationId": name,
        "summary": summary,
        "parameters": parameters,
        "responses": _answers(answer, _NO_SUCH_JOB),
    }


def _package() -> list[Schema]:
    pattern = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}\.(zip|whl)$"
    return [_in_path("protocol", {"enum": ["gcs"]}), _in_path("name", {"type": "string", "pattern": pattern})]


def _in_path(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _flag() -> Schema:
    return {"type": "boolean"}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "required": list(properties), "properties": properties}


def _answers(schema: Schema | None, more: Schema) -> Schema:
    """``schema``: of JSON; None = an empty body."""
    text = {"text/plain": {"schema": _STRING}}
    given = {"content": {"application/json": {"schema": schema}}} if schema is not None else {}
    refused = {status: {"description": when, "content": text} for status, when in {**_REFUSED, **more}.items()}
    if schema is None and "404" in refused:
        del refused["404"]["content"]
    return {"200": {"description": "so it is", **given}, **refused}
