"""A joblib backend on the cluster, for scikit-learn and everything else that uses joblib.

It is used so::

    register_ray()
    with joblib.parallel_backend("ray"):
        search.fit(x, y)
"""

from __future__ import annotations

from typing import Any

from joblib.parallel import (  # type: ignore[import-untyped, import-not-found, unused-ignore]
    AutoBatchingMixin,
    ThreadingBackend,
    register_parallel_backend,
)

import shoal
from shoal.util.multiprocessing import Pool


def register_ray() -> None:
    """Make the backend known to joblib as "ray" and "shoal"."""
    for name in ("ray", "shoal"):
        register_parallel_backend(name, _Backend)


class _Backend(AutoBatchingMixin, ThreadingBackend):  # type: ignore[misc]
    """joblib's backend for thread pools, on a pool of actors. ``n_jobs=-1``: the cluster's CPUs.

    ``ray_remote_args``: options of the actors.
    """

    uses_threads = False
    supports_sharedmem = False
    _pool: Pool | None = None

    def __init__(self, *, ray_remote_args: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._remote_args = ray_remote_args

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        if n_jobs is not None and n_jobs < 0:
            if not shoal.is_initialized():
                shoal.init()
            cpus = int(shoal.cluster_resources().get("CPU", 1))
            return max(1, cpus + 1 + n_jobs)
        return int(super().effective_n_jobs(n_jobs))

    def configure(self, n_jobs: int = 1, parallel: Any = None, **kwargs: Any) -> int:
        self._remote_args = kwargs.pop("ray_remote_args", None) or self._remote_args
        return int(super().configure(n_jobs, parallel, **kwargs))

    def _get_pool(self) -> Pool:
        if self._pool is None:
            self._pool = Pool(self._n_jobs, ray_remote_args=self._remote_args)
        return self._pool

    def terminate(self) -> None:
        super().terminate()
        self.reset_batch_stats()
