"""Names for annotations, as ``ray.types``: ``def f(x: ObjectRef[int]) -> None``."""

from __future__ import annotations

from shoal._core.object_ref import ObjectRef

__all__ = ["ObjectRef"]
