"""ClassAMI: whether clusters of the target's features are the predicted classes."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar, final

import numpy

from .....packages import require
from ..criterion import CRITERIA, Criterion, Evidence

_MOST = 2000


@CRITERIA.register("class_ami")
@final
@dataclass(frozen=True, kw_only=True)
class ClassAMI(Criterion):
    """Adjusted mutual information of k-means clusters of the target's features and its predicted classes.

    Musgrave, Belongie & Lim, Three New Validators and a Large-Scale Benchmark Ranking for UDA, 2022. As many clusters
    as classes; at most 2,000 samples. seed: of the clusters' first centres.
    """

    higher_is_better: ClassVar[bool] = True
    seed: int = 0

    def compute(self, evidence: Evidence) -> float:
        """Of the target's features and outputs. 0 chance … 1."""
        capped = evidence.capped(_MOST)
        features = capped.target_features.double().cpu().numpy()
        return cluster_agreement(
            features, capped.target_outputs.argmax(1).cpu().numpy(), self._clusters(capped), self.seed
        )

    @staticmethod
    def _clusters(evidence: Evidence) -> int:
        return min(evidence.target_outputs.shape[1], len(evidence.target_outputs))


def cluster_agreement(features: numpy.ndarray, decided: numpy.ndarray, clusters: int, seed: int) -> float:
    """Adjusted mutual information of k-means clusters and decisions. features: (n, d), decided: (n,)."""
    cluster = require("sklearn.cluster", purpose="the criterion class_ami", install="scikit-learn")
    metrics = require("sklearn.metrics", purpose="the criterion class_ami", install="scikit-learn")
    with warnings.catch_warnings(action="ignore"):  # where there are fewer different samples than clusters
        found = cluster.KMeans(clusters, n_init=3, random_state=seed).fit_predict(features)
    return float(metrics.adjusted_mutual_info_score(decided, found))
