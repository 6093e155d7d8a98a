"""Each service imports this first: structlog then comes without rich, which it imports for coloured tracebacks that no
service prints. Where the command line's rich is installed, each of them would start a tenth of a second later and take
4 MiB more."""

from __future__ import annotations

import sys

if "structlog" not in sys.modules:
    rich = sys.modules.pop("rich", None)
    sys.modules["rich"] = None  # type: ignore[assignment]  # an ImportError for whoever wants it
    try:
        import structlog  # noqa: F401
    finally:
        del sys.modules["rich"]
        if rich is not None:
            sys.modules["rich"] = rich
