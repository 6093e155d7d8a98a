"""How the worker processes of one runtime environment are started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Launch:
    """The default is how workers without an environment are started."""

    #: The document, which they pass on to what they start.
    document: str = ""
    #: On top of the node's own environment variables.
    environ: Mapping[str, str] = field(default_factory=dict)


#: Of workers without a runtime environment.
PLAIN = Launch()
