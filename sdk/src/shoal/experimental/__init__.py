"""What may still change."""

from __future__ import annotations

from shoal.experimental.locations import get_local_object_locations, get_object_locations
from shoal.experimental.objects import ObjectBuffer, create_object

__all__ = ["ObjectBuffer", "create_object", "get_local_object_locations", "get_object_locations"]
