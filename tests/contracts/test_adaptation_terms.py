"""What the term of every method of domain adaptation promises, on one step of a small network."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neurenix.errors import ConfigurationError, UnknownNameError
from neurenix.models import PretrainedModel, adopt
from neurenix.transfer.adaptation import METHODS
from neurenix.transfer.adaptation._objective import ask
from neurenix.transfer.adaptation.method import (
    DomainStep,
    Side,
    Sizes,
    Term,
    TermMethod,
    method_from,
    record_of,
)

FEATURES, CLASSES, SIDE = 8, 3, 16
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name, kind in METHODS.items() if issubclass(kind, TermMethod)},
    "afn, hard": ("afn", {"way": "hard"}),
    "cdan, random map": ("cdan", {"map_size": 16}),
    "cdan, all samples alike": ("cdan", {"entropy": False}),
    "dan, biased": ("dan", {"estimator": "biased"}),
    "deep_coral, means": ("deep_coral", {"means": True}),
    "jan, biased": ("jan", {"estimator": "biased"}),
    "eta": ("eta", {"margin": 1.0}),  # an untrained network is sure of nothing
    "mean_teacher": ("mean_teacher", {"drop": 0.0}),  # which features are dropped depends on the order of samples
}
# Alignments are zero on equal domains, but for these.
NEVER_ZERO = {
    "afn": "it moves norms away from where they are: always its growth squared",
    "afn, hard": "it moves norms to a radius that no domain has yet",
    "dan": "the unbiased estimate is zero in the mean alone; the biased one is zero",
    "jan": "the unbiased estimate is zero in the mean alone; the biased one is zero",
}
# What these teach comes from the target, or is for the target alone.
LEAVES_SOURCE = {"adda", "bnm", "information_maximisation", "mcc", "mean_teacher"}

every_variant = pytest.mark.parametrize("variant", VARIANTS)


def method_of(variant: str) -> TermMethod:
    name, options = VARIANTS[variant]
    return METHODS[name](**options)


# Without a source, steps with an empty target have nothing at all, and are never made.
EMPTY_SIDES = [
    (variant, side) for variant in VARIANTS for side in ("source", "target")[: 1 + method_of(variant).uses_source]
]
READ_FEATURES = [variant for variant in VARIANTS if method_of(variant).reads_inputs is None]


class Network(nn.Module):
    """A few convolutions with a norm, and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.next = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.squeeze = nn.Linear(16, FEATURES)
        self.head = nn.Linear(FEATURES, CLASSES)
        with torch.no_grad():
            self.head.weight.mul_(8)  # so that it is sure of some samples and not of others

    def forward(self, images: Tensor) -> Tensor:
        maps = self.next(self.norm(self.stem(images)).relu()).relu()
        return self.head(torch.tanh(10 * self.squeeze(maps.mean((2, 3)))))


class Scene:
    """A network in training, a method's term that has begun, and steps for it.

    The target's images are darker, and differ less in their colours. Of a method that uses no source, steps have none.
    """

    def __init__(self, variant: str, *, seed: int = 0) -> None:
        self.method = method_of(variant)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.model: PretrainedModel = adopt(Network()).train()
            self.images = torch.rand(11, 3, 1, 1) * torch.rand(11, 3, SIDE, SIDE)
            self.others = 0.4 * torch.rand(8, 3, SIDE, SIDE)
            torch.manual_seed(seed)
            self.term: Term = self.method.term(Sizes(features=FEATURES, outputs=CLASSES))
            self.term.begin(self.model)
        self.begin_epoch()

    def begin_epoch(self) -> None:
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(1)
            looked = ask(self.model.eval(), self.others)
            self.term.begin_epoch(0, lambda: (*looked, torch.arange(len(looked[0]))))
        self.model.train()

    def step(self, source: Tensor | None = None, target: Tensor | None = None) -> DomainStep:
        """source, target: places of the samples that are in it; None is all."""
        source = torch.arange(len(self.images)) if source is None else source
        source = source if self.method.uses_source else source[:0]
        target = torch.arange(len(self.others)) if target is None else target
        inputs = torch.cat([self.images[source], self.others[target]])
        features, outputs = ask(self.model, inputs) if len(inputs) else (torch.zeros(0, 8), torch.zeros(0, 3))
        return self.step_of(inputs, features, outputs, source, target)

    def step_of(self, inputs: Tensor, features: Tensor, outputs: Tensor, source: Tensor, target: Tensor) -> DomainStep:
        split = len(source)
        return DomainStep(
            source=Side(
                inputs=inputs[:split],
                features=features[:split],
                outputs=outputs[:split],
                targets=source % CLASSES,
                places=source,
            ),
            target=Side(
                inputs=inputs[split:],
                features=features[split:],
                outputs=outputs[split:],
                targets=None,
                places=target,
            ),
            progress=0.5,
            ask=lambda asked, _: ask(self.model, asked),
        )

    def with_features(self, change: Callable[[Tensor], Tensor]) -> tuple[DomainStep, Tensor]:
        """A step whose features (n, d) are changed and then leaves of the graph; the features."""
        step = self.step()
        inputs = torch.cat([step.source.inputs, step.target.inputs])  # type: ignore[list-item]
        features = change(torch.cat([step.source.features, step.target.features]).detach()).requires_grad_()
        outputs = self.model.head(features)
        return self.step_of(inputs, features, outputs, step.source.places, step.target.places), features

    def total(self, step: DomainStep, *, seed: int = 2) -> Tensor:
        """The sum of what the term adds, drawn with a seed."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            parts = self.term(step)
        assert all(part.shape == () for part in parts.values())
        return sum(parts.values(), start=step.target.outputs.sum() * 0.0)


def gradients(loss: Tensor, wanted: list[Tensor]) -> list[Tensor]:
    """Zeros where the loss does not depend on something."""
    if not wanted:
        return []
    found = torch.autograd.grad(loss, wanted, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(w) if g is None else g for w, g in zip(wanted, found, strict=True)]


# --- settings ----------------------------------------------------------------------------------------------------


@every_variant
def test_a_method_is_a_record(variant: str) -> None:
    method = method_of(variant)
    again = method_from(json.loads(json.dumps(record_of(method))))
    assert again == method
    assert method.family and method.tasks and type(method).__doc__


def wrong_settings() -> list[tuple[str, str, Any]]:
    """(method, field, value) of numbers below zero or not one, of words that mean nothing, of lists that are empty."""
    found: list[tuple[str, str, Any]] = []
    for name, kind in METHODS.items():
        for field in fields(kind):
            value = getattr(kind(), field.name) if issubclass(kind, TermMethod) else None
            wrong = {bool: [], int: [-1], float: [-1.0, float("nan")], str: ["nonsense"], list: [[], [-1.0]]}
            found += [(name, field.name, each) for each in wrong.get(type(value), [])]
    return found


@pytest.mark.parametrize(("name", "field", "value"), wrong_settings())
def test_settings_that_cannot_work_are_refused_by_name(name: str, field: str, value: Any) -> None:
    with pytest.raises((ConfigurationError, UnknownNameError)) as caught:
        METHODS[name](**{field: value})
    shown = repr(value) if isinstance(value, str) else str(value)
    assert shown in str(caught.value)
    assert field in str(caught.value) or isinstance(caught.value, UnknownNameError)


# --- one step ----------------------------------------------------------------------------------------------------


@every_variant
def test_a_step_is_finite_and_teaches_the_model(variant: str) -> None:
    """With 11 samples of the source and 8 of the target."""
    scene = Scene(variant)
    total = scene.total(scene.step())
    assert bool(total.isfinite())
    found = gradients(total, [*scene.model.parameters(), *scene.term.parameters()])
    assert all(bool(gradient.isfinite().all()) for gradient in found)
    assert any(bool(gradient.any()) for gradient in found[: len(list(scene.model.parameters()))])


@every_variant
def test_the_same_seed_gives_the_same_step(variant: str) -> None:
    first, second = Scene(variant), Scene(variant)
    assert torch.equal(first.total(first.step()), second.total(second.step()))


@pytest.mark.parametrize(("variant", "empty"), EMPTY_SIDES)
def test_a_side_may_be_empty(variant: str, empty: str) -> None:
    scene = Scene(variant)
    total = scene.total(scene.step(**{empty: torch.arange(0)}))
    found = gradients(total, [*scene.model.parameters(), *scene.term.parameters()])
    assert bool(total.isfinite()) and all(bool(gradient.isfinite().all()) for gradient in found)
    if scene.method.family == "alignment" and VARIANTS[variant][0] != "afn":
        assert float(total.detach()) == 0.0  # there is nothing to align


@every_variant
def test_one_sample_of_each_is_enough(variant: str) -> None:
    scene = Scene(variant)
    total = scene.total(scene.step(torch.arange(1), torch.arange(1)))
    found = gradients(total, [*scene.model.parameters(), *scene.term.parameters()])
    assert bool(total.isfinite()) and all(bool(gradient.isfinite().all()) for gradient in found)


@pytest.mark.parametrize("variant", READ_FEATURES)
def test_the_order_of_samples_is_nothing(variant: str) -> None:
    """But for methods that draw something for each sample: another order is another draw."""
    first, second, third = Scene(variant), Scene(variant), Scene(variant)
    generator = torch.Generator().manual_seed(3)
    orders = torch.randperm(11, generator=generator), torch.randperm(8, generator=generator)
    expected = first.total(first.step())
    if torch.equal(expected, third.total(third.step(), seed=7)):
        torch.testing.assert_close(second.total(second.step(*orders)), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("variant", [variant for variant in VARIANTS if method_of(variant).family == "alignment"])
def test_alignments_are_zero_on_equal_domains(variant: str) -> None:
    scene = Scene(variant)
    apart = float(scene.total(scene.step()).detach())
    scene.images = scene.others
    together = float(scene.total(scene.step(torch.arange(8))).detach())
    if variant in NEVER_ZERO:
        assert abs(together) > 1e-5, f"take {variant} out of NEVER_ZERO"
    else:
        assert together == pytest.approx(0, abs=1e-6)
        assert apart > 1e-4


@pytest.mark.parametrize("variant", READ_FEATURES)
def test_features_of_both_domains_are_taught(variant: str) -> None:
    """Those of the source too, where the method does not say otherwise."""
    scene = Scene(variant)
    step, features = scene.with_features(lambda features: features)
    (gradient,) = gradients(scene.total(step), [features])
    split = len(step.source)
    assert bool(gradient.isfinite().all()) and bool(gradient[split:].any())
    if split:
        assert bool(gradient[:split].any()) == (variant not in LEAVES_SOURCE)


EXTREMES: dict[str, Callable[[Tensor], Tensor]] = {
    "equal": torch.ones_like,
    "zero": torch.zeros_like,
    "huge": lambda features: 1e6 * features,
    "tiny": lambda features: 1e-12 * features,
}


@pytest.mark.parametrize("variant", READ_FEATURES)
@pytest.mark.parametrize("extreme", EXTREMES)
def test_extreme_features_have_finite_gradients(variant: str, extreme: str) -> None:
    scene = Scene(variant)
    step, features = scene.with_features(EXTREMES[extreme])
    total = scene.total(step)
    found = gradients(total, [features, *scene.model.head.parameters(), *scene.term.parameters()])
    assert bool(total.isfinite()) and all(bool(gradient.isfinite().all()) for gradient in found)


@pytest.mark.parametrize("variant", READ_FEATURES)
def test_broken_features_are_for_the_loop_to_name(variant: str) -> None:
    """A term gives a loss that is not finite, and no error of its own."""
    scene = Scene(variant)
    step, _ = scene.with_features(lambda features: features * torch.nan)
    assert bool(scene.total(step).isnan())


# --- what it remembers -------------------------------------------------------------------------------------------


@every_variant
def test_the_state_of_a_term_is_whole(variant: str) -> None:
    """After some steps, another one that takes it over gives the same next step, bit by bit."""
    first, second = Scene(variant), Scene(variant, seed=9)
    for _ in range(2):
        parameters = list(first.term.parameters())
        found = gradients(first.total(first.step()), parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, found, strict=True):
                parameter.sub_(0.1 * gradient)
        first.term.end_step(first.model)
    second.term.load_state_dict(first.term.state_dict())
    second.model.load_state_dict(first.model.state_dict())
    expected = first.total(first.step())
    assert torch.equal(second.total(second.step()), expected)
