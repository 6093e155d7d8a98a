"""What a user of the service calls. It needs nothing but the service's name."""

from __future__ import annotations

from typing import Any

import numpy as np
from proxy import NAME
from trainer import Progress

import shoal as ray


class Client:
    def __init__(self) -> None:
        self._proxy = ray.get_actor(NAME)

    def submit(self, models: dict[str, Any], features: np.ndarray, labels: np.ndarray) -> int:
        """Ask for the best of ``models`` on this data; returns the request's number."""
        # The data goes to the object store once; what travels through the service are references.
        stored = {name: ray.put(model) for name, model in models.items()}
        return ray.get(self._proxy.submit.remote(stored, [ray.put(features)], [ray.put(labels)]))

    def progress(self, request_ids: list[int]) -> list[Progress]:
        return ray.get([self._proxy.progress.remote(request_id) for request_id in request_ids])

    def result(self, request_id: int) -> ray.ObjectRef:
        """A reference to the leaderboard, which exists when the training is done."""
        return self._proxy.result.remote(request_id)

    def forget(self, request_ids: list[int]) -> None:
        ray.get([self._proxy.forget.remote(request_id) for request_id in request_ids])
