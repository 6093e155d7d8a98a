"""Where Ray has ``MultiOutputNode``."""

from __future__ import annotations

from shoal.dag import MultiOutputNode

__all__ = ["MultiOutputNode"]
