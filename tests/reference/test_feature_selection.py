"""Scores against scikit-learn's own selectors, on its iris and diabetes data."""

from __future__ import annotations

import numpy
import torch
from sklearn.datasets import load_diabetes, load_iris
from sklearn.feature_selection import SelectKBest, VarianceThreshold, mutual_info_classif, mutual_info_regression
from sklearn.linear_model import lars_path

from neurenix.transfer.features import FeatureSelector


def test_variance_is_scikit_learns() -> None:
    features, _ = load_iris(return_X_y=True)
    ours = FeatureSelector("variance", count=2).fit(features)
    theirs = VarianceThreshold().fit(features)
    numpy.testing.assert_allclose(ours.scores.numpy(), theirs.variances_)


def test_mutual_information_is_scikit_learns() -> None:
    features, targets = load_iris(return_X_y=True)
    ours = FeatureSelector("mutual_information", count=2).fit(torch.from_numpy(features), torch.from_numpy(targets))
    theirs = SelectKBest(lambda x, y: mutual_info_classif(x, y, random_state=0), k=2).fit(features, targets)
    assert ours.indices.tolist() == theirs.get_support(indices=True).tolist() == [2, 3]  # the petals
    numpy.testing.assert_allclose(ours.scores.numpy(), theirs.scores_)


def test_mutual_information_of_values_is_scikit_learns() -> None:
    features, targets = load_diabetes(return_X_y=True)
    ours = FeatureSelector("mutual_information", count=3).fit(features, targets)
    numpy.testing.assert_allclose(ours.scores.numpy(), mutual_info_regression(features, targets, random_state=0))


def test_l1_takes_the_columns_that_the_lasso_path_takes_first() -> None:
    """The path by least angles is another algorithm; Efron et al. 2004 name body mass and s5 as the first two."""
    features, targets = load_diabetes(return_X_y=True)
    ours = FeatureSelector("l1", count=2).fit(features, targets)
    _, entered, _ = lars_path(features, targets - targets.mean(), method="lasso")
    assert ours.indices.tolist() == sorted(entered[:2]) == [2, 8]
