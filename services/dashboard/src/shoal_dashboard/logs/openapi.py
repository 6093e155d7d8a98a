"""What ``/api/v0/logs`` takes and answers, for the OpenAPI document. Pure."""

from __future__ import annotations

from typing import Any

from shoal_dashboard.logs.query import MAX_LINES

Schema = dict[str, Any]

_STRING: Schema = {"type": "string"}
_REFUSED = {
    "400": "the question makes no sense; the text says why",
    "401": "no token: `Authorization: Bearer <token>`",
    "403": "a wrong token",
    "503": "the cluster or the node does not answer",
}


def read_paths() -> Schema:
    asked = [
        *(_asked(name, _STRING) for name in ("node_id", "node_ip", "filename", "actor_id", "task_id", "submission_id")),
        _asked("pid", {"type": "integer"}),
        _asked("attempt_number", {"type": "integer"}),
        _asked("lines", {"type": "integer", "minimum": -1, "maximum": MAX_LINES}),
        _asked("suffix", {"enum": ["out", "err"]}),
        _asked("filter_ansi_code", {"type": "boolean"}),
        _asked("format", {"enum": ["json", "text"]}),
        _asked("download_filename", _STRING),
    ]
    text: Schema = {"text/plain": {"schema": _STRING}}
    refused = {**_REFUSED, "404": "nobody has printed that, or it is not kept any more"}
    return {
        "/api/v0/logs/{media_type}": {
            "get": {
                "operationId": "read_log",
                "summary": "What a task, an actor or a process has printed; a stream goes on until it ends.",
                "parameters": [
                    {"name": "media_type", "in": "path", "required": True, "schema": {"enum": ["file", "stream"]}},
                    *asked,
                ],
                "responses": {
                    "200": {"description": "lines", "content": text | {"application/x-ndjson": {}}},
                    "307": {"description": "of a submitted job: its output is there"},
                    **{status: {"description": when, "content": text} for status, when in refused.items()},
                },
            }
        }
    }


def list_parameters() -> list[Schema]:
    """Of ``/api/v0/logs``, which answers as the state interface does."""
    return [_asked(name, _STRING) for name in ("node_id", "node_ip", "glob")]


def _asked(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "query", "schema": schema}
