"""One unit of work: fit one model on the training part of one fold, and score it on the rest."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

import shoal as ray

FOLDS = 5


@dataclass(frozen=True)
class Score:
    """What one model reached on one fold."""

    model: str
    fold: int
    accuracy: float
    #: Time to fit and predict, in seconds.
    seconds: float


@ray.remote
def train_and_evaluate(name: str, model: Any, features: np.ndarray, labels: np.ndarray, fold: int) -> Score:
    """Every task cuts the same folds from the same seed, so the folds need not be sent around."""
    from sklearn.base import clone
    from sklearn.model_selection import StratifiedKFold

    start = time.perf_counter()
    splits = StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(features, labels)
    train, test = list(splits)[fold]
    fitted = clone(model).fit(features[train], labels[train])
    accuracy = float(fitted.score(features[test], labels[test]))
    return Score(name, fold, accuracy, time.perf_counter() - start)
