"""Where Ray has ``InputNode``."""

from __future__ import annotations

from shoal.dag import InputAttributeNode, InputNode

__all__ = ["InputAttributeNode", "InputNode"]
