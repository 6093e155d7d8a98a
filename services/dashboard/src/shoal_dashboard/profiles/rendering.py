"""A profile in the form that somebody wants. Pure."""

from __future__ import annotations

import json

from shoal_common.py_spy import RATE
from shoal_dashboard.profiles import flame_graph, speedscope
from shoal_dashboard.profiles.request import Form, Kind
from shoal_dashboard.profiles.stack_counts import parse, tree
from shoal_dashboard.state.amounts import size

#: The media types of the forms.
MEDIA_TYPES = {Form.FLAME_GRAPH: "image/svg+xml", Form.SPEEDSCOPE: "application/json", Form.RAW: "text/plain"}


def rendered(kind: Kind, folded: bytes, form: Form, name: str) -> str:
    """``folded``: of CPU or MEMORY, as the raylet sends it. ``name``: of the process, for humans."""
    if form is Form.RAW:
        return folded.decode("utf-8", "replace")
    stacks = parse(folded)
    if form is Form.SPEEDSCOPE:
        if kind is Kind.MEMORY:
            return json.dumps(speedscope.document(name, stacks, "bytes"))
        return json.dumps(speedscope.document(name, stacks, "seconds", 1 / RATE))
    return flame_graph.svg(tree(stacks), size if kind is Kind.MEMORY else lambda count: f"{count / RATE:.2f} s")
