"""The actor that serves one request: it spreads the work over the workers and keeps the scores."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean, stdev

from evaluation import FOLDS, Score, train_and_evaluate

import shoal as ray


@dataclass(frozen=True)
class Progress:
    done: int
    total: int


@dataclass(frozen=True)
class Entry:
    """One line of the leaderboard."""

    model: str
    accuracies: tuple[float, ...]
    #: Time that all folds took together, in seconds of one CPU.
    seconds: float

    @property
    def accuracy(self) -> float:
        return mean(self.accuracies)

    @property
    def spread(self) -> float:
        return stdev(self.accuracies)


# One thread trains, the other answers how far it is.
@ray.remote(max_concurrency=2)
class Trainer:
    def __init__(self, models: dict[str, ray.ObjectRef], features: list[ray.ObjectRef], labels: list[ray.ObjectRef]):
        # The references come inside containers, so they arrive as references: this process passes the models and
        # the data on without ever loading them.
        self.models = models
        self.features, self.labels = features[0], labels[0]
        self.scores: list[Score] = []

    def train(self) -> list[Entry]:
        """The leaderboard, best model first."""
        pending = [
            train_and_evaluate.remote(name, model, self.features, self.labels, fold)
            for name, model in self.models.items()
            for fold in range(FOLDS)
        ]
        while pending:
            ready, pending = ray.wait(pending)
            self.scores += ray.get(ready)
        entries = [self._entry(name) for name in self.models]
        return sorted(entries, key=lambda entry: (-entry.accuracy, entry.seconds))

    def progress(self) -> Progress:
        return Progress(len(self.scores), len(self.models) * FOLDS)

    def _entry(self, name: str) -> Entry:
        scores = sorted((s for s in self.scores if s.model == name), key=lambda s: s.fold)
        return Entry(name, tuple(s.accuracy for s in scores), sum(s.seconds for s in scores))
