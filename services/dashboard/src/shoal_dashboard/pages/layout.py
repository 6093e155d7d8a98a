"""The frame of all pages: templates, and what each of them may use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from shoal_dashboard.links import root_of
from shoal_dashboard.pages import columns
from shoal_dashboard.pages.columns import RESOURCES, VIEW
from shoal_dashboard.state.amounts import counted

#: What takes longer to read of a large cluster is shown as it was read last, in seconds.
PATIENCE_S = 0.1
HERE = Path(__file__).parent


class Layout:
    def __init__(self) -> None:
        self._templates = Environment(
            loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        self._templates.globals |= {
            "resources": RESOURCES,
            "view": f"{VIEW}/",
            "title": columns.title,
            "cell": columns.cell,
            "counted": counted,
        }

    def page(self, request: Request, template: str, values: Mapping[str, Any], status: int = 200) -> Response:
        path = request.url.path
        text = self._templates.get_template(template).render(root=root_of(path), path=path, **values)
        return HTMLResponse(text, status)
