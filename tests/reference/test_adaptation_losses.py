"""Losses of domain adaptation against skada, scikit-learn, SciPy, values of tllib, and closed forms."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy
import pytest
import scipy.stats
import skada
import sklearn.metrics
import torch
from scipy.spatial.distance import pdist
from torch import Tensor, nn

from neurenix.transfer.adaptation.method import DomainStep, Side, Sizes, Term, TermMethod
from neurenix.transfer.adaptation.methods import ADDA, CDAN, DANN, MCD, MDD
from neurenix.transfer.adaptation.methods._discriminator import Discriminator, domain_loss
from neurenix.transfer.adaptation.methods._kernel_means import gaussian_kernels, mean_discrepancy, squared_distances
from neurenix.transfer.adaptation.methods.adda import inverted_label_loss
from neurenix.transfer.adaptation.methods.afn import hard_norm_gap, stepwise_norm_gap
from neurenix.transfer.adaptation.methods.bnm import negative_nuclear_norm
from neurenix.transfer.adaptation.methods.bsp import spectral_penalty
from neurenix.transfer.adaptation.methods.cdan import certainty_weights, multilinear_map, random_multilinear_map
from neurenix.transfer.adaptation.methods.coral import covariance_gap, mean_gap
from neurenix.transfer.adaptation.methods.dan import kernel_discrepancy
from neurenix.transfer.adaptation.methods.jan import joint_discrepancy
from neurenix.transfer.adaptation.methods.mcc import class_confusion
from neurenix.transfer.adaptation.methods.mcd import classifier_discrepancy
from neurenix.transfer.adaptation.methods.mdd import source_disparity, target_disparity
from neurenix.transfer.adaptation.strength import STRENGTHS

EXACT = {"rtol": 1e-9, "atol": 1e-12}


def wave(rows: int, columns: int, phase: float) -> Tensor:
    """Numbers that any library can be given."""
    i, j = torch.arange(rows).double().unsqueeze(1), torch.arange(columns).double().unsqueeze(0)
    return torch.sin(phase + 3 * i + 7 * j + i * j)


# What tllib (github.com/thuml/Transfer-Learning-Library at c4aa59e) gives for these, in float64. Its MMDs are sums over
# kernels whose mean distance counts the zeros of the diagonal, and have 2 / (n - 1) added, which is taken off here.
SOURCE, TARGET = wave(5, 4, 0.0), 0.5 + wave(5, 4, 1.0)
SOURCE_LOGITS, TARGET_LOGITS = 2 * wave(5, 3, 2.0), 2 * wave(5, 3, 3.0)
SOURCE_ADVERSARY, TARGET_ADVERSARY = 2 * wave(5, 3, 4.0), 2 * wave(5, 3, 5.0)
TLLIB = {
    "dan": 0.0544587802,
    "jan": -0.0914841138,
    "mdd": -8.4105068501,
    "bsp": 14.5673733372,
    "coral": 0.2878850172,
    "mcc": 0.6087088095,
}


def tllib_bandwidths(*alphas: float) -> list[float]:
    """Its kernels are exp(-d / (2 · alpha · mean of all n² distances)), n = 10."""
    return [2 * alpha * 9 / 10 for alpha in alphas]


@pytest.fixture
def skada_losses(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """skada/deep/losses.py alone: its package wants skorch, whose trainers the losses do not use."""
    stand_ins = {"skorch": (), "skada.deep": (), "skada.deep.base": ("BaseDALoss",)}
    for name, classes in {**stand_ins, "skada.deep.utils": ("SphericalKMeans",)}.items():
        module = ModuleType(name)
        for each in classes:
            setattr(module, each, object)
        monkeypatch.setitem(sys.modules, name, module)
    path = Path(skada.__file__).parent / "deep" / "losses.py"
    spec = importlib.util.spec_from_file_location("skada_losses", path)
    assert spec is not None and spec.loader is not None
    losses = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(losses)
    yield losses


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


# --- covariances -------------------------------------------------------------------------------------------------


def test_covariance_gap_is_skadas_tllibs_and_a_closed_form(skada_losses: Any, generator: torch.Generator) -> None:
    source, target = normal(generator, 20, 5), 2 * normal(generator, 13, 5)
    torch.testing.assert_close(covariance_gap(source, target), skada_losses.deepcoral_loss(source, target), **EXACT)
    # tllib's: mean of squared means' gaps, plus mean of squared covariances' gaps, which is 4 times the paper's
    assert float(4 * covariance_gap(SOURCE, TARGET) + mean_gap(SOURCE, TARGET)) == pytest.approx(TLLIB["coral"])
    corners = torch.tensor([[1.0, 1], [-1, -1], [1, -1], [-1, 1]])
    by_hand = covariance_gap(3**0.5 * corners, 0.75**0.5 * corners)  # 4 I and I, so ||3 I||² / (4 · 2²) = 18 / 16
    assert float(by_hand) == pytest.approx(1.125)


# --- kernels -----------------------------------------------------------------------------------------------------


def test_kernels_are_scikit_learns(generator: torch.Generator) -> None:
    points, bandwidths = 5 + 3 * normal(generator, 9, 4), [0.5, 1.0, 4.0]
    unit = (pdist(points.numpy()) ** 2).mean()
    expected = numpy.mean(
        [sklearn.metrics.pairwise.rbf_kernel(points.numpy(), gamma=1 / (b * unit)) for b in bandwidths], axis=0
    )
    numpy.testing.assert_allclose(gaussian_kernels(points, bandwidths), expected, rtol=1e-10)


def test_biased_discrepancy_is_skadas(skada_losses: Any, generator: torch.Generator) -> None:
    """Its kernels are Laplacian, so it is given ours: both are then equation 5 of Gretton et al."""
    source, target = normal(generator, 8, 3), 1 + normal(generator, 11, 3)
    kernel = gaussian_kernels(torch.cat([source, target]), [1.0])
    places = {id(source): slice(8), id(target): slice(8, None)}
    expected = skada_losses._maximum_mean_discrepancy(source, target, lambda x, y: kernel[places[id(x)], places[id(y)]])
    torch.testing.assert_close(kernel_discrepancy(source, target, [1.0], "biased"), expected, **EXACT)


def test_unbiased_discrepancy_is_tllibs() -> None:
    value = kernel_discrepancy(SOURCE, TARGET, tllib_bandwidths(0.5, 1.0, 2.0))
    assert float(value) == pytest.approx(TLLIB["dan"] / 3, rel=1e-8)


def test_unbiased_discrepancy_by_hand() -> None:
    """At 0 and 1, against 2 and 3: squared distances 1, 1 within, 4, 9, 1, 4 between, 20 / 6 on average."""
    value = kernel_discrepancy(torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [3.0]]), [1.0])
    one, four, nine = (math.exp(-squared * 6 / 20) for squared in (1, 4, 9))
    assert float(value) == pytest.approx(2 * one - (one + 2 * four + nine) / 2, rel=1e-5)


def test_the_unbiased_discrepancy_of_equal_distributions_is_zero_on_average(generator: torch.Generator) -> None:
    kernels = (torch.exp(-squared_distances(normal(generator, 12, 2))) for _ in range(4000))
    values = torch.stack([mean_discrepancy(kernel, 5) for kernel in kernels])
    assert abs(float(values.mean())) < 4 * float(values.std()) / 4000**0.5
    assert float(values.min()) < 0


def test_joint_discrepancy_is_tllibs() -> None:
    value = joint_discrepancy((SOURCE, SOURCE_LOGITS), (TARGET, TARGET_LOGITS), tllib_bandwidths(0.5, 1.0))
    assert float(value) == pytest.approx(TLLIB["jan"] / 2, rel=1e-8)


# --- predictions of the target -----------------------------------------------------------------------------------


def test_class_confusion_is_skadas_tllibs_and_a_closed_form(skada_losses: Any, generator: torch.Generator) -> None:
    logits = 3 * normal(generator, 17, 4)
    expected = skada_losses.mcc_loss(logits, T=2.0, eps=0.0)
    torch.testing.assert_close(class_confusion(logits, 2.0), expected, **EXACT)
    assert float(class_confusion(TARGET_LOGITS, 2.5)) == pytest.approx(TLLIB["mcc"], rel=1e-4)  # its logs are shifted
    assert float(class_confusion(torch.zeros(6, 5), 2.5)) == pytest.approx(4 / 5)  # every class as often as any other
    assert float(class_confusion(200 * torch.eye(5), 2.5)) == pytest.approx(0, abs=1e-6)


def test_confusion_is_not_lowered_by_being_less_sure(generator: torch.Generator) -> None:
    """No gradient goes through the weights, as in the authors' code; here it is written out with constant ones."""
    logits = torch.randn(7, 4, generator=generator, requires_grad=True)
    (found,) = torch.autograd.grad(class_confusion(logits, 2.0), logits)
    answers = (logits / 2.0).softmax(1)
    with torch.no_grad():
        weights = 1 + (answers * answers.log()).sum(1).exp()
        weights = 7 * weights / weights.sum()
    correlation = torch.einsum("ni,n,nj->ij", answers, weights, answers)
    shares = correlation / correlation.sum(1, keepdim=True)
    (expected,) = torch.autograd.grad((shares.sum() - shares.trace()) / 4, logits)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)


def test_nuclear_norm_is_numpys_and_a_closed_form(generator: torch.Generator) -> None:
    logits = normal(generator, 7, 4)
    expected = -numpy.linalg.norm(logits.softmax(1).numpy(), "nuc") / 7
    assert float(negative_nuclear_norm(logits)) == pytest.approx(expected)
    sure = 100 * torch.eye(3).repeat(4, 1)  # three singular values of √4, over 12 samples
    assert float(negative_nuclear_norm(sure)) == pytest.approx(-3 * 2 / 12, rel=1e-5)


# --- norms and spectra -------------------------------------------------------------------------------------------


def test_norm_gaps_by_hand() -> None:
    features = torch.tensor([[3.0, 4.0], [0.0, 2.0]], dtype=torch.float64, requires_grad=True)
    gap = stepwise_norm_gap(features, 0.7)
    assert float(gap.detach()) == pytest.approx(0.49)  # tllib's too
    (gradient,) = torch.autograd.grad(gap, features)
    directions = torch.tensor([[0.6, 0.8], [0.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(gradient, -2 * 0.7 * directions / 2, **EXACT)
    assert float(hard_norm_gap(features, 25.0).detach()) == pytest.approx((3.5 - 25) ** 2)


def test_norms_grow_no_further_than_they_may() -> None:
    """Norms 5, 2, 9 that grow by 4 up to 8: by 3, by 4, and not at all."""
    features = torch.tensor([[3.0, 4.0], [0.0, 2.0], [9.0, 0.0]], requires_grad=True)
    gap = stepwise_norm_gap(features, 4.0, most=8.0)
    gap.backward()
    assert float(gap.detach()) == pytest.approx((9 + 16 + 0) / 3)
    assert features.grad is not None
    assert features.grad.norm(dim=1).tolist() == pytest.approx([2 * 3 / 3, 2 * 4 / 3, 0])


def test_spectral_penalty_is_tllibs_and_numpys(generator: torch.Generator) -> None:
    assert float(spectral_penalty(SOURCE, 1) + spectral_penalty(TARGET, 1)) == pytest.approx(TLLIB["bsp"])
    features = normal(generator, 6, 4)
    expected = (numpy.linalg.svd(features.numpy(), compute_uv=False)[:2] ** 2).sum()
    assert float(spectral_penalty(features, 2)) == pytest.approx(expected)


# --- adversaries -------------------------------------------------------------------------------------------------


def test_domain_loss_is_scikit_learns(generator: torch.Generator) -> None:
    logits, weights = normal(generator, 9), torch.rand(9, generator=generator, dtype=torch.float64)
    shares, labels = logits.sigmoid().numpy(), [1] * 4 + [0] * 5
    for chosen in (None, weights):
        parts = [
            sklearn.metrics.log_loss(
                labels[part], shares[part], labels=[0, 1], sample_weight=None if chosen is None else chosen[part]
            )
            for part in (slice(4), slice(4, None))
        ]
        assert float(domain_loss(logits, 4, chosen)) == pytest.approx(sum(parts) / 2)
    inverted = sklearn.metrics.log_loss([1] * 5, shares[4:], labels=[0, 1])
    assert float(inverted_label_loss(logits[4:])) == pytest.approx(inverted)


def test_strengths_are_those_of_the_paper() -> None:
    """Ganin et al., section 5.2.2, at the beginning, in the middle and at the end."""
    assert STRENGTHS["sigmoid"](0.0) == 0.0
    assert STRENGTHS["sigmoid"](0.5) == pytest.approx(0.98661429815143)
    assert STRENGTHS["sigmoid"](1.0) == pytest.approx(0.99990920426260)
    assert [STRENGTHS["linear"](0.25), STRENGTHS["constant"](0.0)] == [0.25, 1.0]


def test_multilinear_maps_are_kroneckers_products(generator: torch.Generator) -> None:
    features, shares = normal(generator, 6, 4), normal(generator, 6, 3).softmax(1)
    expected = [numpy.kron(feature, share) for feature, share in zip(features.numpy(), shares.numpy(), strict=True)]
    numpy.testing.assert_allclose(multilinear_map(features, shares), expected)
    maps = normal(generator, 4, 400_000), normal(generator, 3, 400_000)
    mapped = random_multilinear_map(features, shares, maps)
    kernel = (features @ features.T) * (shares @ shares.T)  # theorem 1 of the paper: equal in the mean
    torch.testing.assert_close(mapped @ mapped.T, kernel, rtol=0, atol=0.05)


def test_certainty_weights_are_scipys(generator: torch.Generator) -> None:
    logits = 2 * normal(generator, 6, 3)
    expected = 1 + numpy.exp(-scipy.stats.entropy(logits.softmax(1).numpy(), axis=1))
    numpy.testing.assert_allclose(certainty_weights(logits), expected)


def test_margin_disparity_is_tllibs() -> None:
    value = 3 * source_disparity(SOURCE_ADVERSARY, SOURCE_LOGITS.argmax(1))
    value = value + target_disparity(TARGET_ADVERSARY, TARGET_LOGITS.argmax(1))
    assert float(value) == pytest.approx(-TLLIB["mdd"], rel=1e-5)  # its logs are shifted by 1e-6


def test_classifier_discrepancy_by_hand() -> None:
    one, other = torch.tensor([[0.0, 0.0]]), torch.tensor([[math.log(3.0), 0.0]])
    assert float(classifier_discrepancy(one, other)) == pytest.approx(0.25)  # (½, ½) and (¾, ¼)


# --- whose gradient is whose: one backward pass against one for each player ----------------------------------------


class Players:
    """Features of both domains, a classifier, and the term of a method between them."""

    def __init__(self, method: TermMethod, generator: torch.Generator, progress: float = 0.5) -> None:
        self.source, self.target = (torch.randn(rows, 5, generator=generator).requires_grad_() for rows in (7, 6))
        self.labels = torch.arange(7) % 3
        self.head = nn.Linear(5, 3)
        with torch.no_grad():
            for parameter in self.head.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.term = method.term(Sizes(features=5, outputs=3))
        self.strength = STRENGTHS["sigmoid"](progress)
        self.step = DomainStep(
            source=Side(
                inputs=self.source,
                features=self.source,
                outputs=self.head(self.source),
                targets=self.labels,
                places=torch.arange(7),
            ),
            target=Side(
                inputs=self.target,
                features=self.target,
                outputs=self.head(self.target),
                targets=None,
                places=torch.arange(6),
            ),
            progress=progress,
            ask=lambda inputs, _: (inputs, self.head(inputs)),
        )

    def gradients(self, loss: Tensor, *wanted: Tensor | nn.Module) -> list[Tensor]:
        """In the order that they are asked for, zeros where the loss does not depend on something."""
        tensors = [
            part for each in wanted for part in (list(each.parameters()) if isinstance(each, nn.Module) else [each])
        ]
        found = torch.autograd.grad(loss, tensors, retain_graph=True, allow_unused=True)
        return [
            torch.zeros_like(tensor) if gradient is None else gradient
            for tensor, gradient in zip(tensors, found, strict=True)
        ]


def total(term: Term, step: DomainStep) -> Tensor:
    return sum(term(step).values(), start=torch.zeros(()))


def same(first: list[Tensor], second: list[Tensor]) -> None:
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-7)


def test_dann_reverses_what_features_feel(generator: torch.Generator) -> None:
    players = Players(DANN(weight=2.0), generator)
    features = players.source, players.target
    network = players.term.get_submodule("discriminator")
    plain = 2.0 * domain_loss(network(torch.cat(features)), 7)
    loss = total(players.term, players.step)
    same(players.gradients(loss, network), players.gradients(plain, network))
    same(players.gradients(loss, *features), [-players.strength * g for g in players.gradients(plain, *features)])


@pytest.mark.parametrize("map_size", [4096, 8])
def test_cdan_reverses_what_features_feel_and_leaves_predictions(map_size: int, generator: torch.Generator) -> None:
    players = Players(CDAN(map_size=map_size), generator)
    network = players.term.get_submodule("discriminator")
    features, logits = (
        torch.cat([players.source, players.target]),
        players.head(torch.cat([players.source, players.target]).detach()),
    )
    maps = players.term.get_buffer("maps")
    shares = logits.detach().softmax(1)
    joined = (
        multilinear_map(features, shares)
        if map_size == 4096
        else random_multilinear_map(features, shares, (maps[:5], maps[5:]))
    )
    plain = domain_loss(network(joined), 7, certainty_weights(logits.detach()))
    loss = total(players.term, players.step)
    assert not any(gradient.any() for gradient in players.gradients(loss, players.head))
    same(players.gradients(loss, network), players.gradients(plain, network))
    both = players.source, players.target
    same(players.gradients(loss, *both), [-players.strength * g for g in players.gradients(plain, *both)])


def test_mdd_reverses_what_features_feel_and_leaves_the_classifier(generator: torch.Generator) -> None:
    players = Players(MDD(margin=3.0, reversal=0.2), generator)
    adversary = players.term.get_submodule("adversary")
    plain = 3.0 * source_disparity(adversary(players.source), players.step.source.outputs.argmax(1))
    plain = plain + target_disparity(adversary(players.target), players.step.target.outputs.argmax(1))
    loss = total(players.term, players.step)
    assert not any(gradient.any() for gradient in players.gradients(loss, players.head))
    same(players.gradients(loss, adversary), players.gradients(plain, adversary))
    both = players.source, players.target
    same(players.gradients(loss, *both), [-0.2 * players.strength * g for g in players.gradients(plain, *both)])


def test_both_classifiers_of_mcd_disagree_while_features_agree(generator: torch.Generator) -> None:
    players = Players(MCD(weight=2.0), generator)
    second = players.term.get_submodule("second")
    players.term.get_buffer("first").copy_(players.head.weight.detach())
    plain = 2.0 * classifier_discrepancy(players.head(players.target), second(players.target))
    parts = players.term(players.step)
    assert float(parts["discrepancy"].detach()) == pytest.approx(-float(plain.detach()))
    found = players.gradients(parts["discrepancy"], players.head, second)
    same(found, [-gradient for gradient in players.gradients(plain, players.head, second)])
    (felt,) = players.gradients(parts["discrepancy"], players.target)
    same([felt], [players.strength * gradient for gradient in players.gradients(plain, players.target)])
    labels = nn.functional.cross_entropy(second(players.source), players.labels)
    same(
        players.gradients(parts["second_classifier"], second, players.source),
        players.gradients(labels, second, players.source),
    )


def test_one_backward_pass_of_adda_trains_both_players(generator: torch.Generator) -> None:
    players = Players(ADDA(weight=0.5), generator)
    network = players.term.get_submodule("discriminator")
    assert isinstance(network, Discriminator)

    class Stayed(nn.Module):
        """A model whose features are what it is given, as those of the source were."""

        def __init__(self, head: nn.Module) -> None:
            super().__init__()
            self.head = head

        def forward(self, inputs: Tensor) -> Tensor:
            return self.head(1 + inputs)

    players.term.begin(Stayed(players.head))  # type: ignore[arg-type]
    loss = total(players.term, players.step)
    told = domain_loss(network(torch.cat([1 + players.source, players.target]).detach()), 7)
    same(players.gradients(loss, network), players.gradients(told, network))
    mapped = 0.5 * inverted_label_loss(network(players.target))
    same(players.gradients(loss, players.target), players.gradients(mapped, players.target))
    assert not players.gradients(loss, players.source)[0].any()
