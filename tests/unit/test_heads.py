"""The mathematics of heads against other implementations and by hand, how they begin, and how they are misused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy
import pytest
import sklearn.covariance
import sklearn.discriminant_analysis
import sklearn.metrics
import sklearn.neighbors
import torch
from torch import Tensor, nn
from torch.nn import functional

from neurenix.data import Subset
from neurenix.errors import ConfigurationError, DamagedFileError, LabelMismatchError, UnknownNameError
from neurenix.models import adopt
from neurenix.training import discriminant_head
from neurenix.training.discriminant import ledoit_wolf
from neurenix.transfer import Finetuner, attach_head, heads, predict
from neurenix.transfer.heads._class_means import class_means
from neurenix.transfer.heads._kind import kind_from
from neurenix.transfer.heads._starts import class_rows
from neurenix.transfer.heads.cosine import cosine_logits
from neurenix.transfer.heads.gaussian import gaussian_loss
from neurenix.transfer.heads.nearest_neighbours import MemoryHead, neighbour_votes
from neurenix.transfer.heads.ordinal import corn_loss, decoded_grades, grade_probabilities
from neurenix.transfer.heads.prototype import negative_squared_distances
from neurenix.transfer.heads.quantile import ordered, pinball_loss
from neurenix.transfer.labels import contract_of

CLASSES, SIZE = 4, 6


def classified(generator: torch.Generator, samples: int = 80) -> tuple[Tensor, Tensor]:
    """Features (n, 6) around one centre for each class, and class numbers."""
    numbers = torch.arange(samples) % CLASSES
    centres = 2 * torch.randn(CLASSES, SIZE, generator=generator)
    return centres[numbers] + torch.randn(samples, SIZE, generator=generator), numbers


class Identity(nn.Module):
    """Its features are its inputs, so that a tuner can be given features."""

    def __init__(self, outputs: int = CLASSES) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(SIZE, SIZE, bias=False), nn.Linear(SIZE, outputs)
        nn.init.eye_(self.body.weight)

    def forward(self, values: Tensor) -> Tensor:
        return self.head(self.body(values))


def filled(kind: Any, data: tuple[Tensor, Tensor], epochs: int = 1, **options: Any) -> Finetuner:
    tuner = Finetuner(Identity(), head=kind, **{"strategy": "head", **options})
    tuner.fit(data, epochs=epochs, run=False)
    return tuner


# --- numbers from outside -------------------------------------------------------------------------------------------


def test_linear_discriminants_are_those_of_scikit_learn(generator: torch.Generator) -> None:
    features, numbers = classified(generator)
    other = sklearn.discriminant_analysis.LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.2)
    other.fit(features.double().numpy(), numbers.numpy())
    weight, bias = discriminant_head(features, numbers, CLASSES, shrinkage=0.2)
    numpy.testing.assert_allclose(weight.numpy(), other.coef_, rtol=1e-8)
    numpy.testing.assert_allclose(bias.numpy(), other.intercept_, rtol=1e-8)


@pytest.mark.parametrize("samples", [10, 80])
def test_the_shrinkage_is_that_of_scikit_learn(samples: int, generator: torch.Generator) -> None:
    values = torch.randn(samples, SIZE, generator=generator, dtype=torch.float64) * torch.arange(1, SIZE + 1)
    _, expected = sklearn.covariance.ledoit_wolf(values.numpy(), assume_centered=True)
    assert ledoit_wolf(values) == pytest.approx(expected)


def test_prototypes_are_the_nearest_centroids_of_scikit_learn(generator: torch.Generator) -> None:
    features, numbers = classified(generator)
    other = sklearn.neighbors.NearestCentroid().fit(features.numpy(), numbers.numpy())
    means = class_means(features, numbers, CLASSES)
    numpy.testing.assert_allclose(means.numpy(), other.centroids_, rtol=1e-5)
    others = torch.randn(50, SIZE, generator=generator)
    found = negative_squared_distances(others, means)
    torch.testing.assert_close(found, -torch.cdist(others, means).square(), rtol=1e-4, atol=1e-4)
    assert numpy.array_equal(found.argmax(1).numpy(), other.predict(others.numpy()))


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_neighbours_are_those_of_scikit_learn(distance: str, generator: torch.Generator) -> None:
    features, numbers = classified(generator)
    others = 3 * torch.randn(50, SIZE, generator=generator)
    other = sklearn.neighbors.KNeighborsClassifier(7, metric=distance).fit(features.numpy(), numbers.numpy())
    kind = heads.NearestNeighbours(num_outputs=CLASSES, neighbours=7, distance=distance, weights="uniform")
    found = filled(kind, (features, numbers), precision="fp32").predict_proba(others)
    numpy.testing.assert_allclose(found, other.predict_proba(others.numpy()), atol=1e-4)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_neighbours_are_found_with_all_digits_in_any_precision(distance: str, generator: torch.Generator) -> None:
    """Two remembered samples, whose distances to the third differ by less than bf16 tells apart."""
    kind = heads.NearestNeighbours(num_outputs=2, neighbours=1, distance=distance, weights="uniform")
    head = MemoryHead(2, kind)
    head.solve(torch.tensor([[1.0, 1.0], [1.0, 1.001]]), torch.tensor([0, 1]))
    others = torch.tensor([[1.0, 1.0004], [1.0, 1.0006]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert head(others).argmax(1).tolist() == [0, 1]


def test_votes_by_similarity() -> None:
    """Two neighbours of cosines 1 and 0 at τ = 1 vote e : 1."""
    votes = neighbour_votes(torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([2, 0, 1]), 3, 2, 1.0)
    assert votes.tolist()[0] == pytest.approx([1 / (1 + math.e), 0, math.e / (1 + math.e)])


def test_cosine_logits_are_torchs(generator: torch.Generator) -> None:
    features, directions = (torch.randn(5, SIZE, generator=generator) for _ in range(2))
    expected = 7 * functional.cosine_similarity(features.unsqueeze(1), directions.unsqueeze(0), dim=2)
    torch.testing.assert_close(cosine_logits(features, directions, 7.0), expected)


def test_pinball_loss_is_that_of_scikit_learn(generator: torch.Generator) -> None:
    targets, levels = torch.randn(40, 1, generator=generator), torch.tensor([0.1, 0.5, 0.8])
    quantiles = torch.randn(40, 1, 3, generator=generator)
    expected = [
        sklearn.metrics.mean_pinball_loss(targets[:, 0].numpy(), quantiles[:, 0, place].numpy(), alpha=float(level))
        for place, level in enumerate(levels)
    ]
    assert float(pinball_loss(quantiles, targets, levels)) == pytest.approx(numpy.mean(expected), rel=1e-5)


def test_quantiles_cannot_cross(generator: torch.Generator) -> None:
    raw = 20 * torch.randn(100, 2, 5, generator=generator)
    assert bool((ordered(raw[..., :1], raw[..., 1:]).diff(dim=-1) >= 0).all())


def test_the_plain_likelihood_is_torchs(generator: torch.Generator) -> None:
    mean, targets = (torch.randn(30, 2, generator=generator) for _ in range(2))
    variance = torch.rand(30, 2, generator=generator) + 0.1
    expected = functional.gaussian_nll_loss(mean, targets, variance)
    assert float(gaussian_loss(mean, variance, targets, beta=0.0)) == pytest.approx(float(expected), rel=1e-5)


def test_with_beta_1_the_mean_learns_as_by_squared_errors(generator: torch.Generator) -> None:
    mean = torch.randn(30, 1, generator=generator, requires_grad=True)
    targets, variance = torch.randn(30, 1, generator=generator), torch.rand(30, 1, generator=generator) + 0.1
    (found,) = torch.autograd.grad(gaussian_loss(mean, variance, targets, beta=1.0), mean)
    (expected,) = torch.autograd.grad(0.5 * functional.mse_loss(mean, targets), mean)
    torch.testing.assert_close(found, expected)


def test_grades_by_hand() -> None:
    """Logits 0 and log 3 are conditional probabilities of 1/2 and 3/4; P(y > 1) = 3/8.

    Of grades 0 and 2 the questions asked are the first (of both) and the second (of grade 2):
    losses log 2 (not higher than 0), log 2 (higher than 0), log 4/3 (higher than 1), divided by 3.
    """
    logits = torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)]])
    assert grade_probabilities(logits).tolist()[0] == pytest.approx([0.5, 0.125, 0.375])
    expected = (2 * math.log(2) + math.log(4 / 3)) / 3
    assert float(corn_loss(logits, torch.tensor([0, 2]))) == pytest.approx(expected)
    assert decoded_grades(torch.tensor([[-1.0, 9.0], [1.0, -1.0], [3.0, 3.0]])).tolist() == [0, 1, 2]


# --- how they begin -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["closed_form", "lda"])
def test_a_solved_head_is_right_before_the_first_step(start: str, generator: torch.Generator) -> None:
    data = classified(generator)
    tuner = filled(
        heads.Linear(num_outputs=CLASSES, start=start), data, learning_rate=1e-9, strategy="full", loss="cross_entropy"
    )
    other = sklearn.discriminant_analysis.LinearDiscriminantAnalysis().fit(data[0].numpy(), data[1].numpy())
    assert tuner.history["accuracy"][0] >= other.score(data[0].numpy(), data[1].numpy()) - 0.03


def test_a_head_at_zero_calls_all_classes_alike(generator: torch.Generator) -> None:
    data = classified(generator)
    tuner = Finetuner(Identity(), head=heads.Linear(num_outputs=CLASSES, start="zero"))
    assert numpy.allclose(tuner.predict_proba(data[0]), 1 / CLASSES)


def test_a_head_is_solved_once(generator: torch.Generator) -> None:
    data = classified(generator)
    tuner = filled(heads.Linear(num_outputs=CLASSES, start="closed_form"), data, learning_rate=0.05)
    assert tuner.model.head_record == {
        "kind": "linear",
        "num_outputs": CLASSES,
        "dropout_rate": 0.0,
        "start": "default",
    }
    weight = tuner.model.head.weight.clone()
    tuner.fit(data, epochs=1, run=False)
    again = Finetuner(tuner.model, learning_rate=1e-9)
    again.fit(data, epochs=1, run=False)
    assert not torch.equal(weight, tuner.model.head.weight)
    torch.testing.assert_close(again.model.head.weight, tuner.model.head.weight, rtol=1e-4, atol=1e-4)


def test_rows_come_by_the_names_of_classes(capsys: pytest.CaptureFixture[str], generator: torch.Generator) -> None:
    model = adopt(Identity())
    model.categories = ("tabby, tabby cat", "hen", "fox", "tractor")
    changed = attach_head(model, heads.Linear(num_outputs=3, start="by_name"), ["fox", "robot", "tabby cat"])
    assert "fox, tabby cat; new: robot" in capsys.readouterr().out
    assert torch.equal(changed.head.weight[[0, 2]], model.head.weight[[2, 0]])
    assert not bool((changed.head.weight[1] == model.head.weight).all(1).any())

    tuner = Finetuner(model, head=heads.Linear(num_outputs=2, start="by_name"), learning_rate=1e-9, weight_decay=0.0)
    tuner.fit((torch.randn(6, SIZE, generator=generator), ["hen", "robot"] * 3), epochs=1, run=False)
    assert "hen; new: robot" in capsys.readouterr().out
    torch.testing.assert_close(tuner.model.head.weight[0], model.head.weight[1], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", [heads.Cosine, heads.MultiLabel])
def test_rows_of_other_heads_come_by_name_too(
    kind: Any, capsys: pytest.CaptureFixture[str], generator: torch.Generator
) -> None:
    model = attach_head(Identity(), kind(num_outputs=4), ["tabby, tabby cat", "hen", "fox", "tractor"], seed=1)
    changed = attach_head(model, kind(num_outputs=3, start="by_name"), ["fox", "robot", "tabby cat"], seed=2)
    assert "fox, tabby cat; new: robot" in capsys.readouterr().out
    for rows, known in zip(class_rows(changed.head), class_rows(model.head), strict=True):
        assert torch.equal(rows[[0, 2]], known[[2, 0]])
        assert not bool((rows[1] == known).flatten(1).all(1).any() if rows.ndim > 1 else (rows[1] == known).any())
    features = torch.randn(5, SIZE, generator=generator)
    with torch.no_grad():
        torch.testing.assert_close(changed(features)[:, [0, 2]], model(features)[:, [2, 0]])
    assert changed.head_record is not None and changed.head_record["start"] == "default"
    with pytest.raises(ConfigurationError, match="categories"):
        attach_head(model, kind(num_outputs=3, start="by_name"))


@pytest.mark.parametrize("kind", [heads.Cosine, heads.MultiLabel])
def test_rows_by_name_need_a_head_of_one_make_and_a_name_that_it_knows(kind: Any) -> None:
    names = ["tabby, tabby cat", "hen", "fox", "tractor"]
    model = attach_head(Identity(), kind(num_outputs=4), names)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(LabelMismatchError, match="found none of robot, owl"):
        attach_head(model, kind(num_outputs=2, start="by_name"), ["robot", "owl"])
    deep = attach_head(Identity(), heads.MLP(num_outputs=4, hidden_sizes=[3]), names)
    with pytest.raises(ConfigurationError, match="heads of one make"):
        attach_head(deep, kind(num_outputs=2, start="by_name"), ["hen", "owl"])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_values_are_learnt_in_units_of_their_spread(generator: torch.Generator) -> None:
    features = torch.randn(64, SIZE, generator=generator)
    values = 5000 + 300 * features[:, 0]
    scaled = (values - values.mean()) / values.std(correction=0)
    losses = []
    for targets in (values, scaled):
        tuner = Finetuner(Identity(), head="regression", num_classes=1, learning_rate=1e-2, loss="huber")
        losses.append(tuner.fit((features, targets), epochs=3, run=False)["loss"])
        assert tuner.evaluate((features, targets))["mse"] == pytest.approx(
            numpy.mean((tuner.predict(features) - targets.numpy()) ** 2), rel=1e-3
        )
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_second_fit_keeps_the_units_of_the_first(generator: torch.Generator) -> None:
    features = torch.randn(32, SIZE, generator=generator)
    tuner = filled(heads.Gaussian(), (features, 100 + features[:, 0]))
    mean = float(tuner.model.head.scaling.mean[0])
    tuner.fit((features, 900 + features[:, 0]), epochs=1, run=False)
    assert float(tuner.model.head.scaling.mean[0]) == mean == pytest.approx(100, abs=1)


def test_the_standard_deviation_is_where_the_noise_is(generator: torch.Generator) -> None:
    features = torch.randn(400, SIZE, generator=generator)
    noisy = (features[:, 1] > 0).float() * 2 + 0.2
    values = 3 * features[:, 0] + noisy * torch.randn(400, generator=generator)
    tuner = filled(heads.Gaussian(hidden_sizes=[16]), (features, values), epochs=30, learning_rate=1e-2)
    sd = torch.from_numpy(tuner.predict_sd(features))
    assert float(sd[noisy > 1].mean()) > 2 * float(sd[noisy < 1].mean())


# --- misuse ---------------------------------------------------------------------------------------------------------

WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "no such kind": (lambda: Finetuner(Identity(), 3, head="cosinus"), UnknownNameError, "closest: cosine"),
    "no such start": (lambda: heads.Cosine(num_outputs=3, start="zero"), ConfigurationError, "can begin as"),
    "no outputs": (lambda: heads.Linear(num_outputs=0), ConfigurationError, "at least one"),
    "a word for a number": (lambda: heads.Linear(num_outputs="3"), ConfigurationError, "a whole number"),
    "no scale": (lambda: heads.Cosine(num_outputs=3, scale=0.0), ConfigurationError, "positive"),
    "one grade": (lambda: heads.Ordinal(num_outputs=1), ConfigurationError, "two at least"),
    "falling levels": (lambda: heads.Quantile(levels=[0.9, 0.1]), ConfigurationError, "rise"),
    "units of three": (lambda: heads.Regression(num_outputs=2, units=["mm"]), ConfigurationError, "one for each"),
    "deep and solved": (
        lambda: heads.Regression(num_outputs=1, hidden_sizes=[3], start="closed_form"),
        ConfigurationError,
        "linear head",
    ),
    "neighbours of no kind": (
        lambda: heads.NearestNeighbours(num_outputs=2, distance="euclidean"),
        ConfigurationError,
        "weights='uniform'",
    ),
    "two places for a setting": (
        lambda: Finetuner(Identity(), 3, head="mlp", head_hidden_sizes=[8]),
        ConfigurationError,
        "hidden_sizes",
    ),
    "two losses": (lambda: Finetuner(Identity(), 1, head="gaussian", loss="mse"), ConfigurationError, "'own'"),
    "smoothed values": (
        lambda: Finetuner(Identity(), 1, head="gaussian", label_smoothing=0.1),
        ConfigurationError,
        "label_smoothing",
    ),
    "solved, but from zero": (
        lambda: Finetuner(Identity(), head=heads.Linear(num_outputs=3, start="zero"), strategy="lp_ft"),
        ConfigurationError,
        "leave start out",
    ),
    "rows without names": (
        lambda: Finetuner(Identity(), head=heads.Linear(num_outputs=3, start="by_name")),
        ConfigurationError,
        "no names",
    ),
    "an object that is no kind": (lambda: Finetuner(Identity(), head=nn.Linear(3, 3)), ConfigurationError, "no kind"),
    "names for other outputs": (
        lambda: attach_head(Identity(), heads.Linear(num_outputs=3), ["a"]),
        LabelMismatchError,
        "name each output",
    ),
    "a name that leaves things open": (lambda: attach_head(Identity(), "linear"), ConfigurationError, "num_outputs"),
    "a record of a later version": (lambda: kind_from({"kind": "linear", "n": 3}), DamagedFileError, "other settings"),
    "a record of no kind": (lambda: kind_from({"kind": "lineal"}), DamagedFileError, "known"),
    "an empty memory": (
        lambda: Finetuner(Identity(), 3, head="nearest_neighbours").predict(torch.zeros(2, SIZE)),
        ConfigurationError,
        "fit fills",
    ),
    "standard deviations of classes": (
        lambda: Finetuner(Identity(), 3).predict_sd(torch.zeros(2, SIZE)),
        ConfigurationError,
        "predict_sd",
    ),
    "a class without a mean": (
        lambda: filled(heads.Prototype(num_outputs=3), (torch.zeros(4, SIZE), torch.tensor([0, 0, 1, 1]))),
        LabelMismatchError,
        "no sample",
    ),
    "a run of a memory": (
        lambda: Finetuner(Identity(), 2, head="nearest_neighbours").fit(
            (torch.zeros(4, SIZE), torch.tensor([0, 0, 1, 1])), run="folder"
        ),
        ConfigurationError,
        "save the tuner",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_misuse_is_named(case: str) -> None:
    call, error, words = WRONG[case]
    with pytest.raises(error, match=words):
        call()


def test_a_refused_head_leaves_the_model_as_it_was() -> None:
    model = adopt(Identity())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(LabelMismatchError):
        attach_head(model, heads.Linear(num_outputs=3), ["a"])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.head_record is None


# --- what answers mean ----------------------------------------------------------------------------------------------


class InUnits(torch.utils.data.TensorDataset):
    """Values that say what they are measured in."""

    def __init__(self, *tensors: Tensor, units: list[str]) -> None:
        super().__init__(*tensors)
        self.units = units


def test_units_are_part_of_the_contract(tmp_path: Path, generator: torch.Generator) -> None:
    features = torch.randn(8, SIZE, generator=generator)
    tuner = Finetuner(Identity(), head=heads.Regression(num_outputs=1, units=["mm"]))
    with pytest.raises(LabelMismatchError, match="are in cm, and the model answers in mm"):
        tuner.fit(InUnits(features, features[:, 0], units=["cm"]), run=False)
    tuner.fit(InUnits(features, features[:, 0], units=["mm"]), epochs=1, run=False)
    tuner.save(tmp_path)
    loaded = Finetuner.load(tmp_path, model=Identity())
    assert contract_of(loaded.model).units == ("mm",)
    with pytest.raises(LabelMismatchError, match="convert"):
        loaded.evaluate(InUnits(features, features[:, 0], units=["cm"]))


class Masks(torch.utils.data.Dataset[Any]):
    """Images with one class for each pixel, which say what their numbers mean."""

    def __init__(self, classes: list[str], background: int | None = None, ignore_index: int | None = None) -> None:
        self.classes, self.background, self.ignore_index = classes, background, ignore_index

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        mask = torch.zeros(8, 8, dtype=torch.long)
        mask[index:, :4] = 1
        return mask.expand(3, 8, 8).float(), mask


def segmenter(background: int | None = None) -> Finetuner:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    return Finetuner(network, head=heads.LinearSegmentation(num_outputs=2, background=background), strategy="full")


def test_background_and_what_is_ignored_are_part_of_the_contract(tmp_path: Path) -> None:
    tuner = segmenter(background=0)
    tuner.fit(Masks(["ground", "road"], background=0, ignore_index=255), epochs=1, run=False)
    tuner.save(tmp_path)
    manifest = json.loads((tmp_path / "neurenix.json").read_text())
    assert manifest["labels"] == {"names": ["ground", "road"], "units": [], "ignore_index": 255, "background": 0}
    loaded = Finetuner.load(tmp_path, model=segmenter().model)
    turned = Masks(["road", "ground"], background=1)
    assert loaded.evaluate(turned)["loss"] > 0  # the numbers differ, the names say the same
    for data, words in (
        (Masks(["ground", "road"], ignore_index=0), "0 is no class .*and for this model 255"),
        (
            Masks(["ground", "road"], background=1),
            "background of these targets is 'road', and that of this model 'grou",
        ),
        (Masks(["ground", "river"]), "river was not in training"),
    ):
        with pytest.raises(LabelMismatchError, match=words):
            loaded.evaluate(data)
        with pytest.raises(LabelMismatchError, match=words):
            loaded.fit(Subset(data, [0, 1]), epochs=1, run=False)
    with pytest.raises(ConfigurationError, match="background=2"):
        segmenter(background=2)


def test_a_background_that_was_changed_is_found_when_it_is_loaded(tmp_path: Path) -> None:
    tuner = segmenter(background=0)
    tuner.fit(Masks(["ground", "road"]), epochs=1, run=False)
    tuner.save(tmp_path)
    manifest = json.loads((tmp_path / "neurenix.json").read_text())
    manifest["head_record"]["background"] = 1
    (tmp_path / "neurenix.json").write_text(json.dumps(manifest))
    with pytest.raises(DamagedFileError, match="manifest was changed"):
        Finetuner.load(tmp_path, model=segmenter().model)


def test_a_changed_contract_is_found_when_it_is_loaded(tmp_path: Path, generator: torch.Generator) -> None:
    names = ["fox", "hen"] * 4
    tuner = Finetuner(Identity(), head="linear", num_classes=2)
    tuner.fit((torch.randn(8, SIZE, generator=generator), names), epochs=1, run=False)
    tuner.save(tmp_path)
    manifest = json.loads((tmp_path / "neurenix.json").read_text())
    assert manifest["labels"] == {"names": ["fox", "hen"], "units": [], "ignore_index": None, "background": None}
    manifest["categories"] = ["hen", "fox"]
    (tmp_path / "neurenix.json").write_text(json.dumps(manifest))
    with pytest.raises(DamagedFileError, match="manifest was changed"):
        Finetuner.load(tmp_path, model=Identity())


def test_names_for_other_outputs_are_found_at_predict() -> None:
    model = attach_head(Identity(), heads.Linear(num_outputs=3))
    model.categories = ("a", "b")
    with pytest.raises(LabelMismatchError, match="name each output"):
        predict(model, torch.zeros(2, SIZE))
