"""Dask's graphs as tasks, as ``ray.util.dask``. Needs the package ``dask``, 2024.12 or later.

    from shoal.util.dask import enable_dask_on_ray

    enable_dask_on_ray()
    frame.groupby("x").sum().compute()

Each step of a graph that dask has optimized is one task, named ``dask:<key>``. What goes from step to step stays in the
object store, and is freed when the last step that needs it has run. ``dask.annotate(ray_remote_args={...})`` gives the
tasks of some steps options; ``dask.callbacks.Callback`` and ``RayDaskCallback`` are told how far it has come.
"""

from __future__ import annotations

from shoal.util.dask.callbacks import ProgressBarCallback, RayDaskCallback
from shoal.util.dask.scheduler import (
    disable_dask_on_ray,
    enable_dask_on_ray,
    ray_dask_get,
    ray_dask_get_sync,
    ray_dask_persist,
)

__all__ = [
    "ProgressBarCallback",
    "RayDaskCallback",
    "disable_dask_on_ray",
    "enable_dask_on_ray",
    "ray_dask_get",
    "ray_dask_get_sync",
    "ray_dask_persist",
]
