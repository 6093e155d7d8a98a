"""The models to choose from and the data to choose on; both come with scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn import datasets
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import ExtraTreesClassifier, GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier


def models() -> dict[str, Any]:
    return {
        "nearest neighbours": make_pipeline(StandardScaler(), KNeighborsClassifier()),
        "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        "linear discriminant": LinearDiscriminantAnalysis(),
        "naive Bayes": make_pipeline(StandardScaler(), GaussianNB(var_smoothing=1e-2)),
        "support vectors": make_pipeline(StandardScaler(), SVC(C=4.0)),
        "decision tree": DecisionTreeClassifier(random_state=0),
        "random forest": RandomForestClassifier(200, random_state=0),
        "extra trees": ExtraTreesClassifier(200, random_state=0),
        "boosted trees": GradientBoostingClassifier(n_estimators=30, subsample=0.5, random_state=0),
        "neural network": make_pipeline(StandardScaler(), MLPClassifier((64,), max_iter=500, tol=1e-3, random_state=0)),
    }


def data_sets() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {
        "handwritten digits": datasets.load_digits(return_X_y=True),
        "breast cancer": datasets.load_breast_cancer(return_X_y=True),
        "wine": datasets.load_wine(return_X_y=True),
        "iris": datasets.load_iris(return_X_y=True),
    }
