"""The service's front door: clients find it by name, it starts one trainer for each request."""

from __future__ import annotations

from itertools import count

from trainer import Entry, Progress, Trainer

import shoal as ray

NAME = "automl"


@ray.remote
class Proxy:
    """An async actor, so that a client that waits for its result keeps no other client waiting."""

    def __init__(self) -> None:
        self._request_ids = count(1)
        self._trainers: dict[int, ray.actor.ActorHandle] = {}
        self._leaderboards: dict[int, ray.ObjectRef] = {}

    async def submit(
        self, models: dict[str, ray.ObjectRef], features: list[ray.ObjectRef], labels: list[ray.ObjectRef]
    ) -> int:
        """Start training; the number that is returned names the request from now on."""
        request_id = next(self._request_ids)
        trainer = Trainer.remote(models, features, labels)
        self._trainers[request_id] = trainer
        self._leaderboards[request_id] = trainer.train.remote()
        return request_id

    async def progress(self, request_id: int) -> Progress:
        return await self._trainers[request_id].progress.remote()

    async def result(self, request_id: int) -> list[Entry]:
        return await self._leaderboards[request_id]

    async def forget(self, request_id: int) -> None:
        """Drop the request: its trainer's process ends with the last handle."""
        del self._trainers[request_id], self._leaderboards[request_id]
