"""What is larger than all that its job may hold at once (``JobConfig(max_resources=)``) is refused at the call."""

from __future__ import annotations

from collections.abc import Mapping

from shoal import _current
from shoal_common.placement.resources import ResourceSet


def check_quota(what: str, needed: Mapping[str, float]) -> None:
    """``needed``: in units. Raises: ValueError."""
    quota = _current.connected().job_quota
    if not quota:
        return
    asked = ResourceSet.of(needed)
    for name, grains in quota:
        if asked[name] > grains:
            may, wants = ResourceSet({name: grains}).to_units(), ResourceSet({name: asked[name]}).to_units()
            raise ValueError(
                f"{what} needs {wants[name]:g} {name} at once, and its job may hold no more than {may.get(name, 0):g} "
                "(JobConfig(max_resources=...)): it could never run. Ask for less, or allow the job more."
            )
