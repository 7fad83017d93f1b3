"""Formulas of the training part against numbers from outside."""

from __future__ import annotations

import math

import numpy
import pytest
import torch
from sklearn.linear_model import Ridge, RidgeCV
from torch import nn
from torchvision.ops import sigmoid_focal_loss

from neurenix.errors import ConfigurationError, LabelMismatchError
from neurenix.training import LOSSES, SCHEDULES, LossOptions, balanced_class_weights, classification_head, ridge_head
from neurenix.training.ema import MovingAverage
from neurenix.training.objective import mix
from neurenix.training.schedules import rate_factor, warmup_steps
from neurenix.transfer.learning_rate_curve import LearningRateCurve, smoothed

PLAIN = LossOptions()


def test_cross_entropy_of_equal_logits_is_log_of_the_class_count():
    loss = LOSSES["cross_entropy"].compute(torch.zeros(3, 7), torch.tensor([0, 3, 6]), PLAIN)
    assert loss.item() == pytest.approx(math.log(7))


def test_focal_equals_torchvision_on_two_classes():
    # softmax over (0, x) is a sigmoid of x, so the binary form of torchvision is an independent implementation
    x = torch.linspace(-3, 3, 11)
    targets = torch.arange(11) % 2
    ours = LOSSES["focal"].compute(torch.stack([torch.zeros(11), x], 1), targets, PLAIN)
    theirs = sigmoid_focal_loss(x, targets.float(), alpha=-1, gamma=2.0, reduction="mean")
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)


def test_binary_cross_entropy_by_hand():
    loss = LOSSES["bce"].compute(torch.tensor([[0.0, 2.0]]), torch.tensor([[1, 0]]), PLAIN)
    assert loss.item() == pytest.approx((math.log(2) + math.log(1 + math.exp(2))) / 2, rel=1e-6)


@pytest.mark.parametrize(("name", "expected"), [("mse", 2.5), ("mae", 1.5), ("huber", 1.0)])
def test_regression_losses_by_hand(name, expected):
    # errors 1 and 2: (1 + 4) / 2; (1 + 2) / 2; (1/2 + (2 - 1/2)) / 2
    assert LOSSES[name].compute(torch.tensor([[1.0], [2.0]]), torch.zeros(2), PLAIN).item() == expected


def test_regression_targets_never_broadcast():
    with pytest.raises(LabelMismatchError, match="num_classes"):
        LOSSES["mse"].compute(torch.zeros(4, 2), torch.zeros(4), PLAIN)


def test_balanced_class_weights_equal_scikit_learn():
    from sklearn.utils.class_weight import compute_class_weight

    targets = numpy.array([0, 0, 0, 1, 2, 2])
    expected = compute_class_weight("balanced", classes=numpy.arange(3), y=targets)
    numpy.testing.assert_allclose(balanced_class_weights(torch.from_numpy(targets), 3), expected, rtol=1e-6)


def test_balanced_class_weights_of_an_absent_class():
    with pytest.raises(ConfigurationError, match=r"classes \[1\]"):
        balanced_class_weights(torch.tensor([0, 2]), 3)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_schedules_equal_torch(schedule):
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    theirs = {
        "cosine": lambda: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20),
        "linear": lambda: torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=20),
    }[schedule]()
    for step in range(20):
        assert rate_factor(schedule, step, 20, 0) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        theirs.step()


def test_one_cycle_equals_torch():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=101)
    # torch counts its phases in steps minus one, so the two agree in shape and at the ends
    for step in (0, 29, 100):
        while theirs.last_epoch < step:
            optimizer.step()
            theirs.step()
        assert SCHEDULES["one_cycle"](step / 100) == pytest.approx(optimizer.param_groups[0]["lr"], abs=2e-2)


def test_warmup_rises_linearly_to_the_full_rate():
    assert [rate_factor("constant", step, 10, 3) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert (warmup_steps(0.1, 50), warmup_steps(7, 50), warmup_steps(0.0, 50)) == (5, 7, 0)


@pytest.mark.parametrize("columns", [6, 40, 70])
def test_ridge_head_equals_scikit_learn(generator, columns):
    features = torch.randn(40, columns, generator=generator, dtype=torch.float64)
    features[:, -1] = 0.0  # as of a unit that never fires
    targets = torch.randn(40, 2, generator=generator, dtype=torch.float64)
    head = ridge_head(features, targets)
    theirs = Ridge(alpha=head.strength).fit(features.numpy(), targets.numpy())
    numpy.testing.assert_allclose(head.weight, theirs.coef_, rtol=1e-8, atol=1e-12)
    numpy.testing.assert_allclose(head.bias, theirs.intercept_, rtol=1e-8)


@pytest.mark.parametrize("columns", [3, 20])
def test_leave_one_out_equals_refitting_without_each_sample(generator, columns):
    features = torch.randn(12, columns, generator=generator, dtype=torch.float64)
    targets = torch.randn(12, 1, generator=generator, dtype=torch.float64)
    head = ridge_head(features, targets)
    for left_out in range(12):
        kept = [i for i in range(12) if i != left_out]
        again = Ridge(alpha=head.strength).fit(features[kept].numpy(), targets[kept].numpy())
        expected = again.predict(features[[left_out]].numpy())
        numpy.testing.assert_allclose(head.left_out[left_out].numpy(), expected[0], rtol=1e-6)


def test_ridge_strength_is_the_one_scikit_learn_chooses(generator):
    features = torch.randn(60, 20, generator=generator, dtype=torch.float64)
    targets = features[:, :1] + 2 * torch.randn(60, 1, generator=generator, dtype=torch.float64)
    centred = features - features.mean(0)
    grid = [10.0**p * float((torch.linalg.svdvals(centred) ** 2).mean()) for p in range(-3, 5)]
    theirs = RidgeCV(alphas=grid).fit(features.numpy(), targets.numpy())
    assert ridge_head(features, targets).strength == pytest.approx(theirs.alpha_)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1])
def test_features_that_never_differ_give_the_mean(value):
    targets = torch.tensor([0, 1, 1, 2])
    head = ridge_head(torch.full((4, 3), value), nn.functional.one_hot(targets, 3))
    assert torch.allclose(head.weight, torch.zeros(3, 3, dtype=torch.float64), atol=1e-9)
    assert torch.allclose(head.bias, torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64))
    solved = classification_head(torch.full((4, 3), value), targets, 3)
    assert bool(solved.weight.isfinite().all()) and int(solved.bias.argmax()) == 1


def test_classification_head_is_calibrated_and_right(generator):
    centres = 2 * torch.randn(4, 16, generator=generator)
    targets = torch.arange(200) % 4
    features = centres[targets] + torch.randn(200, 16, generator=generator)
    head = classification_head(features[:100], targets[:100], 4)
    logits = features[100:].double() @ head.weight.T + head.bias
    loss = nn.functional.cross_entropy(logits, targets[100:])
    assert (logits.argmax(1) == targets[100:]).float().mean() > 0.95
    assert loss < 0.3  # unscaled ridge scores of this problem give 0.8


def test_mix_by_hand():
    mixed = mix(torch.tensor([[1.0], [3.0]]), torch.tensor([1, 0]), 0.75)
    assert mixed.tolist() == [[1.5], [2.5]]


def test_moving_average_by_hand():
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(0.0)
    average = MovingAverage(model, decay=0.999)
    with torch.no_grad():
        model.weight.fill_(1.0)
    average.update()  # warm-up decay (1 + 1) / (10 + 1)
    with average.swapped_in():
        assert model.weight.item() == pytest.approx(1 - 2 / 11)
    assert model.weight.item() == 1.0


def test_smoothing_is_unbiased_for_a_constant():
    assert smoothed([3.0, 3.0, 3.0]) == pytest.approx([3.0, 3.0, 3.0])


def test_learning_rate_suggestion_is_where_the_loss_falls_most():
    points = [(10.0**p, loss) for p, loss in zip(range(-6, 1), [2.0, 2.0, 1.9, 1.2, 0.9, 0.9, 9.0], strict=True)]
    assert LearningRateCurve(tuple(points)).suggestion == pytest.approx(1e-4)


def test_a_head_solved_on_separable_samples_stays_as_certain_as_platt_allows():
    targets = torch.arange(10) % 2
    features = torch.stack([targets * 10.0, torch.arange(10) * 0.01], 1)
    head = classification_head(features, targets, 2)
    certainty = (features.double() @ head.weight.T + head.bias).softmax(1).amax(1)
    assert certainty.mean().item() == pytest.approx(6 / 7, abs=0.05)  # five of each class: (5 + 1) / (5 + 2)
