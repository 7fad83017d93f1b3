"""What a new user's first hour must not meet: training that silently does something else than was asked for."""

from __future__ import annotations

import numpy
import pytest
import torch
from torch import nn

from neurenix import errors
from neurenix.models import adopt
from neurenix.training import multi_label_head
from neurenix.transfer import Finetuner
from neurenix.transfer.learning_rate_curve import LearningRateCurve


class Network(nn.Module):
    """Two layers and a head, for rows of four numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(nn.Linear(4, 16), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.ReLU())
        self.fc = nn.Linear(16, 2)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.fc(self.layer2(self.layer1(rows)))


class Plain(nn.Module):
    """One hidden layer and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 16)
        self.fc = nn.Linear(16, 1)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self.body(rows)))


@pytest.fixture
def network() -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Network()


@pytest.fixture
def data() -> tuple[numpy.ndarray, numpy.ndarray]:
    rows = numpy.random.default_rng(0).normal(size=(60, 4)).astype("float32")
    targets = numpy.arange(60) % 3
    rows[numpy.arange(60), targets] += 3
    return rows, targets


def changed(tuner: Finetuner, before: dict[str, torch.Tensor]) -> set[str]:
    state = tuner.model.state_dict()
    moved = {name for name in state if not torch.equal(state[name], before[name])}
    return {name.removeprefix("trunk.module.").split(".")[0] for name in moved}


def state_of(tuner: Finetuner) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in tuner.model.state_dict().items()}


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_values_of_a_regression_keep_their_digits(precision):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        rows, plain = torch.randn(200, 4), Plain()
    values = 1000 + 3 * rows[:, 0]
    tuner = Finetuner(
        plain, num_classes=1, loss="mse", strategy="lp_ft", learning_rate=0.01, precision=precision, metrics=["mse"]
    )
    tuner.fit((rows, values), epochs=10)
    found = tuner.predict(rows)
    assert len(set(found.tolist())) > 150
    assert ((found - values.numpy()) ** 2).mean() < 0.3
    assert tuner.evaluate((rows, values))["mse"] < 0.3


def test_the_head_runs_in_full_precision_and_the_body_does_not():
    model, seen = adopt(Plain()), []
    model.trunk.module.body.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(torch.randn(3, 4))
    assert output.dtype == torch.float32 and seen == [torch.bfloat16]


def test_layers_unfrozen_after_training_the_head_learn_and_no_others(network, data):
    tuner = Finetuner(network, num_classes=3, strategy="head")
    tuner.fit(data, epochs=1)
    tuner.unfreeze_layers("layer2")
    trained = {row.name: row.trainable > 0 for row in tuner.summary().rows}
    assert trained == {"layer1": False, "layer2": True, "fc": True}
    before = state_of(tuner)
    tuner.fit(data, epochs=2)
    assert changed(tuner, before) == {"layer2", "head"}


def test_layers_unfrozen_after_auto_chose_the_head(network, data):
    tuner = Finetuner(network, num_classes=3, strategy="auto")
    tuner.fit((data[0][:9], data[1][:9]), epochs=1)
    tuner.unfreeze_layers("layer2")
    before = state_of(tuner)
    tuner.fit(data, epochs=1)
    assert changed(tuner, before) == {"layer2", "head"}


def test_unfreezing_adds_to_what_partial_trains_by_itself(network):
    tuner = Finetuner(network, num_classes=3, strategy="partial")
    assert {row.name for row in tuner.summary().rows if row.trainable} == {"layer2", "fc"}
    tuner.freeze_layers("layer2.1")
    rates = {name: parameter.requires_grad for name, parameter in tuner.model.named_parameters()}
    assert rates["trunk.module.layer2.0.weight"] and not rates["trunk.module.layer2.1.weight"]
    assert not rates["trunk.module.layer1.0.weight"]
    tuner.unfreeze_layers(["layer1", "layer2.1"])
    assert tuner.summary().trainable == tuner.summary().parameters


def test_auto_keeps_the_statistics_that_its_head_was_solved_with(network, data):
    tuner = Finetuner(network, num_classes=3, strategy="auto")
    before = tuner.model.trunk.module.layer2[1].running_mean.clone()
    tuner.fit(data, epochs=1)
    assert torch.equal(tuner.model.trunk.module.layer2[1].running_mean, before)


@pytest.mark.parametrize("strategy", ["head", "lp_ft", "auto", "full"])
@pytest.mark.parametrize(
    ("change", "num_classes", "message"),
    [
        (lambda y: y + 1, 3, "class numbers begin with 0"),
        (lambda y: y - 1, 3, "class numbers begin with 0"),
        (lambda y: y, 2, "num_classes must be the number of classes"),
        (lambda y: numpy.eye(3)[y], 3, r"y\.argmax\(1\)"),
        (lambda y: numpy.eye(3, dtype=int)[y], 3, r"y\.argmax\(1\)"),
        (lambda y: y[:, None], 3, r"y\.ravel\(\)"),
        (lambda y: numpy.stack([y == 0, y != 1, y != 2], 1), 3, "binary_cross_entropy"),
    ],
)
def test_labels_that_do_not_fit_are_named_before_anything_is_solved(
    network, data, strategy, change, num_classes, message
):
    tuner = Finetuner(network, num_classes=num_classes, strategy=strategy)
    with pytest.raises(errors.LabelMismatchError, match=message):
        tuner.fit((data[0], change(data[1])), epochs=1)


@pytest.mark.parametrize(("loss", "word"), [("mse", "values"), ("binary_cross_entropy", "labels")])
def test_a_head_of_another_width_than_the_targets(network, data, loss, word):
    tuner = Finetuner(network, num_classes=2, loss=loss, strategy="head")
    with pytest.raises(errors.LabelMismatchError, match=f"3 {word} per sample"):
        tuner.fit((data[0], numpy.eye(3)[data[1]]), epochs=1)


def test_labels_other_than_0_and_1(network, data):
    tuner = Finetuner(network, num_classes=3, loss="binary_cross_entropy")
    with pytest.raises(errors.LabelMismatchError, match="0 or 1"):
        tuner.fit((data[0], 2 * numpy.eye(3)[data[1]]), epochs=1)


def test_samples_without_a_number_are_named_before_a_head_is_solved(network, data):
    rows = data[0].copy()
    rows[7] = numpy.nan
    with pytest.raises(errors.NonFiniteError, match="row 7"):
        Finetuner(network, num_classes=3, strategy="head").fit((rows, data[1]), epochs=1)


@pytest.mark.parametrize("strategy", ["head", "lp_ft", "auto"])
def test_a_head_for_several_labels_is_solved_in_closed_form(network, data, strategy):
    labels = numpy.stack([data[1] == 0, data[1] != 2], 1).astype(int)
    tuner = Finetuner(network, num_classes=2, loss="binary_cross_entropy", strategy=strategy, learning_rate=1e-6)
    assert tuner.fit((data[0], labels), epochs=1)["f1_score"][0] > 0.85


def test_the_solved_head_of_several_labels_is_certain_where_it_may_be(generator):
    features = torch.randn(400, 3, generator=generator)
    clear, noise = features[:, 0] > 0, torch.rand(400, generator=generator) < 0.2
    head = multi_label_head(features, torch.stack([clear, noise], 1))
    shares = (features.double() @ head.weight.T + head.bias).sigmoid()
    assert ((shares[:, 0] > 0.5) == clear).double().mean() > 0.95
    assert shares[:, 1].mean() == pytest.approx(noise.double().mean().item(), abs=0.1)
    assert shares[:, 0].std() > 3 * shares[:, 1].std()


def test_what_has_no_closed_form_names_the_strategy(network, data):
    tuner = Finetuner(network, num_classes=3, strategy="lp_ft", head_hidden_sizes=[8])
    with pytest.raises(errors.ConfigurationError, match="lp_ft.*head_hidden_sizes"):
        tuner.fit(data, epochs=1)
    Finetuner(network, num_classes=3, strategy="auto", head_hidden_sizes=8).fit(data, epochs=1)


@pytest.mark.parametrize("arguments", [{"lowest": 1, "highest": 0.1}, {"lowest": 0.0}, {"steps": 1}, {"steps": 20.0}])
def test_rates_that_cannot_be_tried(network, data, arguments):
    with pytest.raises(errors.ConfigurationError, match="lowest|steps"):
        Finetuner(network, num_classes=3).find_lr(data, **arguments)


def test_the_suggested_rate_stays_a_decade_below_the_minimum():
    losses = [(10.0**power, 2.0 - 0.1 * (power + 7)) for power in range(-7, -1)]
    points = [*losses, (0.1, 0.2), (1.0, 5.0), (10.0, 50.0)]
    assert LearningRateCurve(tuple(points)).suggestion == pytest.approx(0.01)


def test_a_rate_is_sought_for_body_and_head_together(network):
    tuner = Finetuner(network, num_classes=3)
    assert {group["base_lr"] for group in tuner._new_optimizer().param_groups} == {1e-3, 1e-4}
    assert len({group["base_lr"] for group in tuner._new_optimizer(one_rate=True).param_groups}) == 1


def test_no_rate_can_be_found_without_numbers(network, data):
    with pytest.raises(errors.NonFiniteError, match="NaN"):
        Finetuner(network, num_classes=3).find_lr((data[0] * numpy.nan, data[1]))


def test_a_learning_rate_of_nothing(network):
    with pytest.raises(errors.ConfigurationError, match="trains nothing"):
        Finetuner(network, num_classes=3, learning_rate=0)


@pytest.mark.parametrize("kind", [torch.float64, torch.int64, torch.uint8, torch.float16])
def test_numbers_of_any_type_for_a_module_of_ones_own(network, data, kind):
    rows = torch.from_numpy(data[0]).abs().to(kind)
    tuner = Finetuner(network, num_classes=3)
    assert len(tuner.fit((rows, data[1]), epochs=1)) == 1
    assert tuner.predict(rows).shape == (60,)


def test_token_numbers_stay_whole():
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(10, 4)
            self.fc = nn.Linear(4, 2)

        def forward(self, numbers: torch.Tensor) -> torch.Tensor:
            return self.fc(self.words(numbers).mean(1))

    assert Finetuner(Words(), num_classes=2).predict(torch.tensor([[1, 2], [3, 4]])).shape == (2,)


def test_rows_of_the_wrong_width(network, data):
    tuner = Finetuner(network, num_classes=3)
    for use in (lambda rows: tuner.fit((rows, data[1]), epochs=1), tuner.predict):
        with pytest.raises(errors.InputMismatchError, match=r"Network cannot read the first sample, \(3,\) float32"):
            use(data[0][:, :3])


def test_answers_that_are_no_numbers(network, data):
    tuner = Finetuner(network, num_classes=3)
    rows = data[0].copy()
    rows[3] = numpy.nan
    with pytest.warns(errors.NeurenixWarning, match=r"1 of 60 samples \(row 3\)"):
        assert len(tuner.predict(rows)) == 60
    with pytest.raises(errors.NonFiniteError, match="60 of 60"):
        tuner.predict_proba(rows * numpy.nan)


def test_targets_in_the_place_of_validation_data(network, data):
    tuner = Finetuner(network, num_classes=3)
    for targets in (data[1], data[1].tolist(), torch.from_numpy(data[1])):
        with pytest.raises(errors.ConfigurationError, match=r"did you mean fit\(\(X, y\)\)"):
            tuner.fit(data[0], targets)
