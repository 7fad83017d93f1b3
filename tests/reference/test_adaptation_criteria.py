"""Criteria, label shift and domain distance against closed forms, numpy in float64, scipy and scikit-learn."""

from __future__ import annotations

import math

import numpy
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.special import log_softmax, softmax
from scipy.stats import entropy as scipy_entropy
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from neurenix.transfer.adaptation.gap import (
    black_box_shift,
    class_shares,
    confusion_rates,
    fit_domain_classifier,
    maximum_likelihood_shift,
    nearest_neighbours,
    proxy_distance,
    share_distance,
    told_by_neighbours,
)
from neurenix.transfer.adaptation.selection import Evidence
from neurenix.transfer.adaptation.selection.criteria import (
    ATC,
    BNM,
    DEV,
    IM,
    IWCV,
    SND,
    ClassAMI,
    ClassSpread,
    MixVal,
    PredictionEntropy,
    SourceError,
    SourceRisk,
)

CLASSES, FEATURES = 4, 6


def drawn(seed: int = 0, source: int = 90, target: int = 70, task: str = "multi_class") -> Evidence:
    generator = torch.Generator().manual_seed(seed)
    targets = {
        "multi_class": torch.randint(CLASSES, (source,), generator=generator),
        "multi_label": torch.randint(2, (source, CLASSES), generator=generator).float(),
        "regression": torch.randn(source, CLASSES, generator=generator),
    }
    return Evidence(
        task=task,
        source_features=torch.randn(source, FEATURES, generator=generator),
        source_outputs=2 * torch.randn(source, CLASSES, generator=generator),
        source_targets=targets[task],
        target_features=0.7 * torch.randn(target, FEATURES, generator=generator) + 0.5,
        target_outputs=2 * torch.randn(target, CLASSES, generator=generator),
        training_features=torch.randn(80, FEATURES, generator=generator),
    )


def answered(target_outputs: Tensor) -> Evidence:
    """Evidence in which only the target's outputs matter."""
    known = drawn()
    features = torch.randn(len(target_outputs), FEATURES, generator=torch.Generator().manual_seed(1))
    return Evidence(
        task="multi_class",
        source_features=known.source_features,
        source_outputs=known.source_outputs[:, : target_outputs.shape[1]],
        source_targets=known.source_targets.clamp(max=target_outputs.shape[1] - 1),
        target_features=features,
        target_outputs=target_outputs,
    )


def sure(classes: list[int], number: int = CLASSES) -> Tensor:
    """Logits of answers that are certain in float64."""
    return 800.0 * torch.nn.functional.one_hot(torch.tensor(classes), number).double()


UNIFORM, SEPARATED, COLLAPSED = torch.zeros(40, CLASSES), sure([0, 1, 2, 3] * 10), sure([2] * 40)


# --- closed forms ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("criterion", "uniform", "separated", "collapsed"),
    [
        (IM(), 0.0, math.log(CLASSES), 0.0),
        (PredictionEntropy(), math.log(CLASSES), 0.0, 0.0),
        (BNM(), 1 / CLASSES, 1.0, 1 / math.sqrt(CLASSES)),
        (ClassSpread(), CLASSES, CLASSES, 1.0),
        # nine neighbours of the same class, thirty whose cosine is 0; exp(-20) of them count
        (SND(), math.log(39), None, math.log(39)),
        (MixVal(), 0.0, 1.0, 0.0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, IM) else "",
)
def test_the_extremes(criterion: IM, uniform: float, separated: float | None, collapsed: float) -> None:
    assert criterion.score(answered(UNIFORM)) == pytest.approx(uniform, abs=1e-12)
    assert criterion.score(answered(COLLAPSED)) == pytest.approx(collapsed, abs=1e-12)
    if separated is not None:
        assert criterion.score(answered(SEPARATED)) == pytest.approx(separated, abs=1e-12)


def test_snd_of_separated_classes() -> None:
    """Each sample has 9 neighbours at cosine 1 and 30 at 0: the entropy of those 39 weights, by hand."""
    weights = numpy.array([math.exp(1 / 0.05)] * 9 + [1.0] * 30)
    shares = weights / weights.sum()
    assert SND().score(answered(SEPARATED)) == pytest.approx(-(shares * numpy.log(shares)).sum(), abs=1e-12)


def test_atc_by_hand() -> None:
    """Two of ten source samples are wrong, so the threshold is the third lowest confidence; 3 of 4 targets reach it."""
    strengths = torch.arange(1.0, 11.0)
    outputs = torch.stack([strengths, torch.zeros(10)], 1)
    target = torch.tensor([[2.9, 0.0], [3.0, 0.0], [0.0, 5.0], [9.0, 0.0]])
    evidence = Evidence(
        task="multi_class",
        source_features=torch.zeros(10, 1),
        source_outputs=outputs,
        source_targets=torch.tensor([0, 1, 0, 1, *[0] * 6]),
        target_features=torch.zeros(4, 1),
        target_outputs=target,
    )
    assert SourceError().score(evidence) == pytest.approx(0.2)
    assert ATC().score(evidence) == 0.75


def test_class_ami_of_clusters_that_are_the_classes() -> None:
    centres = 50 * torch.eye(CLASSES, FEATURES)
    classes = torch.tensor([0, 1, 2, 3] * 10)
    evidence = drawn(target=40)
    right = Evidence(
        **{**vars(evidence), "target_features": centres[classes], "target_outputs": sure(classes.tolist())}
    )
    mixed = Evidence(**{**vars(right), "target_outputs": sure([0] * 20 + [1] * 20)})
    assert ClassAMI().score(right) == pytest.approx(1.0)
    assert abs(ClassAMI().score(mixed)) < 0.1


# --- numpy and scipy in float64 --------------------------------------------------------------------------------


def test_information_and_entropy_by_scipy() -> None:
    evidence = drawn()
    probabilities = softmax(evidence.target_outputs.double().numpy(), axis=1)
    mean_entropy = scipy_entropy(probabilities, axis=1).mean()
    assert IM().score(evidence) == pytest.approx(scipy_entropy(probabilities.mean(0)) - mean_entropy, rel=1e-10)
    assert PredictionEntropy().score(evidence) == pytest.approx(mean_entropy, rel=1e-10)
    assert ClassSpread().score(evidence) == pytest.approx(math.exp(scipy_entropy(probabilities.mean(0))), rel=1e-10)
    norm = numpy.linalg.norm(probabilities, "nuc") / math.sqrt(70 * CLASSES)
    assert BNM().score(evidence) == pytest.approx(norm, rel=1e-10)


def test_information_of_labels_by_scipy() -> None:
    evidence = drawn(task="multi_label")
    yes = 1 / (1 + numpy.exp(-evidence.target_outputs.double().numpy()))
    both = numpy.stack([yes, 1 - yes])
    information = scipy_entropy(both.mean(1), axis=0) - scipy_entropy(both, axis=0).mean(0)
    assert IM().score(evidence) == pytest.approx(information.mean(), rel=1e-10)
    assert PredictionEntropy().score(evidence) == pytest.approx(scipy_entropy(both, axis=0).mean(), rel=1e-10)


def test_snd_by_scipy() -> None:
    evidence = drawn(target=600)  # more than a block of rows
    probabilities = softmax(evidence.target_outputs.double().numpy(), axis=1)
    similar = (1 - cdist(probabilities, probabilities, "cosine")) / 0.05
    rows = [numpy.delete(similar[i], i) for i in range(len(similar))]
    assert SND().score(evidence) == pytest.approx(numpy.mean([scipy_entropy(softmax(row)) for row in rows]), rel=1e-9)


def losses_by_hand(evidence: Evidence) -> numpy.ndarray:
    logs = log_softmax(evidence.source_outputs.double().numpy(), axis=1)
    return -logs[numpy.arange(len(logs)), evidence.source_targets.numpy()]


def weights_by_sklearn(evidence: Evidence) -> numpy.ndarray:
    """Density ratios of an L2 logistic regression over standardised features, as DEV's authors form them."""
    assert evidence.training_features is not None
    known = torch.cat([evidence.training_features, evidence.target_features]).double().numpy()
    domains = numpy.repeat([0, 1], [len(evidence.training_features), len(evidence.target_features)])
    model = LogisticRegression(class_weight="balanced", tol=1e-10, max_iter=5000)
    model.fit((known - known.mean(0)) / known.std(0), domains)
    held_out = (evidence.source_features.double().numpy() - known.mean(0)) / known.std(0)
    share = model.predict_proba(held_out)
    return share[:, 1] / share[:, 0]


def test_importance_weighted_risks_by_sklearn() -> None:
    evidence = drawn()
    losses, weights = losses_by_hand(evidence), weights_by_sklearn(evidence)
    assert SourceRisk().score(evidence) == pytest.approx(losses.mean(), rel=1e-10)
    assert IWCV().score(evidence) == pytest.approx((weights * losses).mean(), rel=1e-4)
    covariance = numpy.cov(weights * losses, weights, ddof=0)
    slope = -covariance[0, 1] / covariance[1, 1]
    risk = (weights * losses).mean() + slope * weights.mean() - slope
    assert DEV().score(evidence) == pytest.approx(risk, rel=1e-4)


def test_dev_of_equal_domains_is_the_source_risk() -> None:
    """Where nothing tells the domains apart all weights are 1."""
    evidence = drawn()
    same = Evidence(
        **{
            **vars(evidence),
            "target_features": evidence.source_features,
            "target_outputs": evidence.source_outputs,
            "training_features": evidence.source_features,
        }
    )
    assert DEV().score(same) == pytest.approx(SourceRisk().score(same), rel=1e-6)
    assert IWCV().score(same) == pytest.approx(SourceRisk().score(same), rel=1e-6)


def test_dev_knows_the_targets_risk() -> None:
    """Covariate shift with known densities: N(0, 1) to N(1, 1), loss f². Its mean is 1 there, and 2 here."""
    generator = torch.Generator().manual_seed(3)
    source, target = torch.randn(4000, 1, generator=generator), 1 + torch.randn(4000, 1, generator=generator)
    evidence = Evidence(
        task="regression",
        source_features=source,
        source_outputs=source,
        source_targets=torch.zeros(4000, 1),
        target_features=target,
        target_outputs=target,
    )
    assert SourceRisk().score(evidence) == pytest.approx(1.0, abs=0.1)
    assert IWCV().score(evidence) == pytest.approx(2.0, abs=0.3)
    assert DEV().score(evidence) == pytest.approx(2.0, abs=0.2)


@pytest.mark.parametrize("task", ["multi_label", "regression"])
def test_risk_of_other_tasks(task: str) -> None:
    evidence = drawn(task=task)
    outputs, targets = evidence.source_outputs.double().numpy(), evidence.source_targets.double().numpy()
    if task == "regression":
        expected = ((outputs - targets) ** 2).mean()
    else:
        expected = log_loss(targets.ravel(), (1 / (1 + numpy.exp(-outputs))).ravel())
        assert SourceError().score(evidence) == pytest.approx(((outputs > 0) != targets).mean())
    assert SourceRisk().score(evidence) == pytest.approx(expected, rel=1e-9)


def test_mixed_agreement_by_hand() -> None:
    """Of a sure and an unsure sample, the mixture of 55 % of the unsure one is decided by the sure one."""
    outputs = torch.tensor([[10.0, 0.0], [0.0, 1.0]])
    scores = {MixVal(seed=seed).score(answered(outputs)) for seed in range(8)}
    assert scores == {0.0, 0.5}  # no pair differs where the order is the same; else one of the two holds


# --- domains ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", [0.1, 1.0, 30.0])
def test_the_domain_classifier_is_sklearns(penalty: float) -> None:
    evidence = drawn(source=120, target=50)
    source, target = evidence.source_features, evidence.target_features
    ours = fit_domain_classifier(source, target, penalty)
    rows = torch.cat([source, target]).double().numpy()
    model = LogisticRegression(C=1 / penalty, class_weight="balanced", tol=1e-10, max_iter=5000)
    model.fit((rows - rows.mean(0)) / rows.std(0), numpy.repeat([0, 1], [120, 50]))
    numpy.testing.assert_allclose(ours.weights, model.coef_[0], atol=1e-4)
    assert ours.bias == pytest.approx(model.intercept_[0], abs=1e-4)


def test_proxy_distance_at_its_extremes() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(500, 8, generator=generator)
    assert proxy_distance(rows, rows + 100) == 2.0
    assert proxy_distance(rows, torch.randn(500, 8, generator=generator)) < 0.15
    assert proxy_distance(torch.ones(30, 3), torch.ones(50, 3)) == 0.0


def test_proxy_distance_of_two_gaussians() -> None:
    """N(0, 1) and N(1, 1) are best told apart at ½, with error Φ(−½) = 0.3085: 2 (1 − 2 · 0.3085) = 0.766."""
    generator = torch.Generator().manual_seed(0)
    source, target = torch.randn(2000, 1, generator=generator), 1 + torch.randn(2000, 1, generator=generator)
    assert proxy_distance(source, target) == pytest.approx(0.766, abs=0.05)


# --- labels ----------------------------------------------------------------------------------------------------

RATES = numpy.array([[0.8, 0.15, 0.0], [0.1, 0.7, 0.3], [0.1, 0.15, 0.7]])


@pytest.mark.parametrize("shares", [(0.2, 0.3, 0.5), (1.0, 0.0, 0.0), (0.0, 0.45, 0.55)])
def test_black_box_shift_finds_the_shares_from_population_confusion(shares: tuple[float, ...]) -> None:
    numpy.testing.assert_allclose(black_box_shift(RATES, RATES @ shares), shares, atol=1e-9)


def test_black_box_shift_stays_among_shares() -> None:
    """q that no shares explain; the best ones by scipy's constrained minimiser."""
    from scipy.optimize import minimize

    predicted = numpy.array([0.98, 0.01, 0.01])
    found = black_box_shift(RATES, predicted)
    assert (found >= 0).all() and found.sum() == pytest.approx(1.0)
    constraint = {"type": "eq", "fun": lambda shares: shares.sum() - 1}
    other = minimize(
        lambda shares: ((RATES @ shares - predicted) ** 2).sum(),
        numpy.full(3, 1 / 3),
        bounds=[(0, 1)] * 3,
        constraints=constraint,
        tol=1e-12,
    )
    numpy.testing.assert_allclose(found, other.x, atol=1e-4)


def test_confusion_and_shares_by_counting() -> None:
    rates = confusion_rates(torch.tensor([0, 0, 1, 1, 1]), torch.tensor([0, 0, 0, 1, 1]), 3)
    numpy.testing.assert_allclose(rates, [[2 / 3, 0, 0], [1 / 3, 1, 0], [0, 0, 1]])
    numpy.testing.assert_allclose(class_shares(torch.tensor([0, 2, 2, 2]), 3), [0.25, 0, 0.75])
    assert share_distance(numpy.array([1.0, 0.0]), numpy.array([0.25, 0.75])) == 0.75


def test_maximum_likelihood_shift_of_calibrated_outputs() -> None:
    """Two Gaussians whose posteriors are known; 2,000 samples of a target with 90 % of the first."""
    generator = torch.Generator().manual_seed(0)
    classes = (torch.rand(2000, generator=generator) > 0.9).long()
    values = torch.randn(2000, generator=generator) + 2.0 * classes
    logits = torch.stack([-values.square() / 2, -(values - 2).square() / 2], 1)  # equal shares in the source
    found = maximum_likelihood_shift(logits.softmax(1), numpy.array([0.5, 0.5]))
    assert found[1] == pytest.approx(float(classes.float().mean()), abs=0.02)


def test_nearest_neighbours_are_scikit_learns() -> None:
    rows = torch.randn(1100, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 9.0, 0.1, 3.0, 1.0])
    scaled = StandardScaler().fit_transform(rows.double())
    expected = NearestNeighbors(n_neighbors=7).fit(scaled).kneighbors(return_distance=False)
    assert torch.equal(nearest_neighbours(rows, 7), torch.from_numpy(expected))
    assert nearest_neighbours(rows[:3]).shape == (3, 2) and nearest_neighbours(rows[:0]).shape == (0, 0)


def test_what_neighbours_tell_of_far_clusters() -> None:
    """20, 30 and 50 samples in three places: every sample has ten neighbours of its own decision."""
    sizes = torch.tensor([20, 30, 50])
    decided = torch.arange(3).repeat_interleave(sizes)
    rows = 100.0 * decided[:, None] + torch.rand(100, 2, generator=torch.Generator().manual_seed(0))
    shares = sizes.numpy() / 100
    surprise = -(shares * numpy.log((10 + shares) / 11)).sum()
    nearest = nearest_neighbours(rows)
    assert told_by_neighbours(decided, nearest, 3) == pytest.approx(1 - surprise / scipy_entropy(shares))
    assert told_by_neighbours(decided + 2, nearest, 7) == pytest.approx(1 - surprise / scipy_entropy(shares))
    most = numpy.log(3)  # of three even classes
    assert told_by_neighbours(decided, nearest, 3, most) == pytest.approx((scipy_entropy(shares) - surprise) / most)
    assert told_by_neighbours(decided, nearest, 3, 0.1) == told_by_neighbours(decided, nearest, 3)
    torn = torch.where(torch.arange(100) % 2 == 0, decided, 2)  # half of each cluster joins the last one
    assert told_by_neighbours(torn, nearest, 3) < told_by_neighbours(decided, nearest, 3) - 0.3


def test_neighbours_tell_nothing_of_one_decision_and_of_chance() -> None:
    generator = torch.Generator().manual_seed(0)
    nearest = nearest_neighbours(torch.randn(2000, 3, generator=generator))
    assert told_by_neighbours(torch.full((2000,), 2), nearest, 4) == 0.0
    assert -0.2 < told_by_neighbours(torch.randint(4, (2000,), generator=generator), nearest, 4) < 0.0
    assert told_by_neighbours(torch.zeros(1).long(), nearest_neighbours(torch.zeros(1, 3)), 4) == 0.0
