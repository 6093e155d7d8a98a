"""How the worker processes of one runtime environment are started."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from shoal_common.surroundings import environment
from shoal_raylet.workers.environments.containers import Container


@dataclass(frozen=True, slots=True)
class Launch:
    """The default is how workers without an environment are started."""

    #: The document, which they pass on to what they start.
    document: str = ""
    #: On top of the node's own environment variables.
    environ: Mapping[str, str] = field(default_factory=dict)
    #: The current directory; None = the node's own.
    directory: str | None = None
    #: The command that runs Python.
    python: tuple[str, ...] = (sys.executable,)
    #: First in ``sys.path``.
    import_paths: tuple[str, ...] = ()
    #: Modules that its template imports.
    preimport: tuple[str, ...] = ()
    #: The words before the command of each, which is then started by itself and not forked.
    profiler: tuple[str, ...] = ()
    #: They run in one, with the image's own environment variables in place of the node's, and its Python.
    container: Container | None = None

    def environment(self) -> dict[str, str]:
        """Of the process."""
        made = {**environment(), **self.environ}
        paths = [*self.import_paths, *filter(None, [made.get("PYTHONPATH")])]
        return {**made, "PYTHONPATH": os.pathsep.join(paths)} if paths else made


#: Of workers without a runtime environment.
PLAIN = Launch()
