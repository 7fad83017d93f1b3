"""Finetuner on a small network with batch norm: freezing, unfreezing, learning, saving, invariants."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy
import pytest
import torch
from torch import nn

from neurenix.callbacks import CALLBACKS
from neurenix.callbacks._base import Callback
from neurenix.errors import (
    ConfigurationError,
    InvariantError,
    LabelMismatchError,
    NonFiniteError,
    UnknownNameError,
    UnusedParameterWarning,
)
from neurenix.storage import tensor_digest
from neurenix.transfer import Finetuner


class SmallNetwork(nn.Module):
    """Three blocks with batch norm, dropout in the middle one, and a linear head called fc."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.layer1 = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2))
        self.layer2 = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.fc = nn.Linear(16, 5)

    def forward(self, images):
        return self.fc(self.layer2(self.layer1(self.conv1(images))).mean((2, 3)))


@pytest.fixture
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SmallNetwork()


@pytest.fixture
def data():
    """48 images of 8x8 pixels in three classes that differ in colour."""
    random = numpy.random.default_rng(0)
    targets = numpy.arange(48) % 3
    images = random.normal(size=(48, 3, 8, 8)).astype("float32")
    images[numpy.arange(48), targets] += 1.0
    return images, targets


def digests(model, *prefixes):
    return {n: tensor_digest(t) for n, t in model.state_dict().items() if any(p in n for p in prefixes)}


def test_learns_and_predicts(network, data):
    tuner = Finetuner(network, num_classes=3, learning_rate=0.01, metrics=["accuracy", "f1_score"])
    history = tuner.fit(data, data, batch_size=16, epochs=8)
    assert history["val_accuracy"][-1] > 0.9
    assert history["loss"][-1] < history["loss"][0]
    assert tuner.evaluate(data)["accuracy"] == history["val_accuracy"][-1]
    images, targets = data
    assert (tuner.predict(images) == targets).mean() > 0.9
    probabilities = tuner.predict_proba(images)
    assert probabilities.shape == (48, 3)
    numpy.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)


def test_the_given_model_is_left_alone(network, data):
    before = digests(network, "")
    Finetuner(network, num_classes=3, learning_rate=0.1).fit(data, epochs=1)
    assert digests(network, "") == before
    assert network.fc.out_features == 5


def test_frozen_layers_keep_every_byte_of_parameters_and_buffers(network, data):
    tuner = Finetuner(network, num_classes=3, freeze_layers=["conv1", "layer1"], learning_rate=0.1)
    before = digests(tuner.model, "conv1", "layer1")
    assert any("running_mean" in name for name in before)
    tuner.fit(data, data, batch_size=16, epochs=2)
    assert digests(tuner.model, "conv1", "layer1") == before
    assert digests(tuner.model, "layer2") != digests(Finetuner(network, num_classes=3).model, "layer2")


def test_a_frozen_layer_runs_without_dropout_and_with_its_own_statistics(network, data):
    seen = []

    class Look(Callback):
        def on_train_batch_end(self, batch, logs):
            modules = dict(self.run.model.named_modules())
            seen.append([modules[f"trunk.module.{name}"].training for name in ("conv1.1", "layer1.3", "layer2.1")])

    Finetuner(network, num_classes=3, freeze_layers=["conv1", "layer1"]).fit(data, epochs=1, callbacks=[Look()])
    assert seen == [[False, False, True]] * len(seen)


@pytest.mark.parametrize(("choice", "moves"), [("batch", True), ("pretrained", False), ("auto", True)])
def test_norm_statistics_move_only_when_asked(network, data, choice, moves):
    tuner = Finetuner(network, num_classes=3, norm_statistics=choice)
    before = digests(tuner.model, "running_")
    tuner.fit(data, epochs=1)
    assert (digests(tuner.model, "running_") != before) == moves


def test_something_that_writes_to_a_frozen_layer_is_caught(network, data):
    class Vandal(Callback):
        def on_epoch_end(self, epoch, logs):
            with torch.no_grad():
                self.run.model.trunk.module.conv1[1].running_mean += 1

    tuner = Finetuner(network, num_classes=3, freeze_layers=["conv1"])
    with pytest.raises(InvariantError, match="conv1.1.running_mean"):
        tuner.fit(data, epochs=1, callbacks=[Vandal()])


def test_a_parameter_that_the_loss_ignores_is_named(network, data):
    network.extra = nn.Linear(2, 2)
    network.fc = network._modules.pop("fc")  # the head stays the last linear layer
    with pytest.warns(UnusedParameterWarning, match="extra.weight"):
        Finetuner(network, num_classes=3).fit(data, batch_size=16, epochs=1)


def test_unfreezing_keeps_the_moments_of_the_others(network, data):
    tuner = Finetuner(network, num_classes=3, freeze_layers=["conv1", "layer1", "layer2"])
    tuner.fit(data, batch_size=16, epochs=2)
    weight = tuner.model.head.weight
    steps, moment = tuner.optimizer.state[weight]["step"].item(), tuner.optimizer.state[weight]["exp_avg_sq"].clone()
    assert steps == 6
    tuner.unfreeze_layers(["layer2"])
    assert tuner.model.trunk.module.layer2[0].weight.requires_grad
    assert not tuner.model.trunk.module.layer1[0].weight.requires_grad
    tuner.fit(data, batch_size=16, epochs=1)
    state = tuner.optimizer.state[weight]
    assert state["step"].item() == 9
    assert tuner.optimizer.state[tuner.model.trunk.module.layer2[0].weight]["step"].item() == 3
    # three steps cannot bring a fresh second moment to this share of the old one: 0.999^3 of it is still there
    assert (state["exp_avg_sq"] >= 0.997 * 0.99 * moment).all()


def test_unfreezing_the_last_frozen_layer_trains_everything(network):
    tuner = Finetuner(network, num_classes=3, freeze_layers=["conv1", "layer1"])
    tuner.unfreeze_layers(["layer1", "conv1"])
    assert tuner.summary().trainable == tuner.summary().parameters


def test_unfreezing_a_part_of_a_frozen_layer(network):
    tuner = Finetuner(network, num_classes=3, freeze_layers=["layer1"])
    tuner.unfreeze_layers("layer1.0")
    rows = {name: p.requires_grad for name, p in tuner.model.named_parameters()}
    assert rows["trunk.module.layer1.0.weight"] and not rows["trunk.module.layer1.1.weight"]


def test_layer_learning_rates_by_name_glob_and_decay(network):
    tuner = Finetuner(
        network, num_classes=3, learning_rate=1e-2, layer_learning_rates={"layer2.*": 1e-3, "layer2.0": 1e-4, "fc": 0.5}
    )
    rates = {group["name"]: group["base_lr"] for group in tuner.optimizer.param_groups}
    assert rates["conv1"] == 1e-2 and rates["layer2.1"] == 1e-3 and rates["layer2.0"] == 1e-4 and rates["fc"] == 0.5
    decayed = Finetuner(network, num_classes=3, learning_rate=1.0, layer_learning_rates=0.5)
    rates = {group["name"]: group["base_lr"] for group in decayed.optimizer.param_groups}
    assert rates == {"fc": 1.0, "layer2": 0.5, "layer1": 0.25, "conv1": 0.125}


def test_progressive_unfreezing_by_epoch(network, data):
    tuner = Finetuner(network, num_classes=3, strategy="progressive")
    history = tuner.fit(data, epochs=4)
    assert history["phase"] == ["head", "layer2 and above", "layer1 and above", "all layers"]
    trained = [set(rates) for rates in history["learning_rates"]]
    assert trained[0] == {"fc"} and trained[1] == {"fc", "layer2"} and trained[3] == {"fc", "layer2", "layer1", "conv1"}


def test_progressive_unfreezing_by_plateau(network, data):
    tuner = Finetuner(
        network, num_classes=3, strategy="progressive", unfreeze_by="plateau", layer_learning_rates={"*": 0.0}
    )
    history = tuner.fit(data, data, epochs=5)
    assert history["phase"] == ["head", "head", "head", "layer2 and above", "layer2 and above"]


def test_a_head_solved_in_closed_form_already_answers(network, data):
    plain = Finetuner(network, num_classes=3, learning_rate=1e-6).fit(data, data, epochs=1)
    solved = Finetuner(network, num_classes=3, learning_rate=1e-6, strategy="head").fit(data, data, epochs=1)
    assert solved["val_accuracy"][0] > 0.8 > plain["val_accuracy"][0]


def test_auto_explains_itself(network, data, capsys):
    Finetuner(network, num_classes=3, strategy="auto").fit(data, epochs=1)
    assert "48 samples, 16 per class: strategy='lp_ft'" in capsys.readouterr().out


def test_accumulation_equals_one_large_batch(network, data):
    states = []
    for batch_size, accumulation in ((16, 1), (4, 4)):
        network_without_norm = copy.deepcopy(network)
        for block in ("conv1", "layer1", "layer2"):
            getattr(network_without_norm, block)[1] = nn.Identity()
        network_without_norm.layer1[3] = nn.Identity()
        tuner = Finetuner(
            network_without_norm, num_classes=3, accumulation_steps=accumulation, precision="fp32", optimizer="sgd"
        )
        tuner.fit(data, batch_size=batch_size, epochs=1)
        states.append(tuner.model.state_dict())
    for name, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][name], rtol=1e-4, atol=1e-6)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(network, data):
    def trained(seed):
        tuner = Finetuner(network, num_classes=3, seed=seed, mixup_alpha=0.4)
        tuner.fit(data, epochs=2)
        return digests(tuner.model, "")

    torch.manual_seed(1)
    first = trained(0)
    torch.manual_seed(2)
    assert trained(0) == first
    assert trained(1) != first


def test_training_leaves_the_callers_random_state_alone(network, data):
    torch.manual_seed(3)
    state = torch.get_rng_state()
    Finetuner(network, num_classes=3).fit(data, epochs=1)
    assert torch.equal(torch.get_rng_state(), state)


def test_moving_average_ends_in_the_model(network, data):
    tuner = Finetuner(network, num_classes=3, learning_rate=0.05, ema_decay=0.9)
    tuner.fit(data, data, epochs=3)
    assert tuner.evaluate(data)["loss"] == pytest.approx(tuner.history["val_loss"][-1], rel=1e-4)


def test_several_labels_per_sample(network, data):
    images, targets = data
    labels = numpy.stack([targets == 0, targets != 2], 1).astype("float32")
    tuner = Finetuner(
        network, num_classes=2, loss="binary_cross_entropy", metrics=["f1_score", "auroc"], learning_rate=0.02
    )
    tuner.fit((images, labels), epochs=8)
    assert tuner.evaluate((images, labels))["auroc"] > 0.9
    assert tuner.predict(images).shape == (48, 2)


def test_regression(network, data):
    images, values = data[0], data[1].astype("float32")
    tuner = Finetuner(network, num_classes=1, loss="mse", metrics=["r2", "mae"], learning_rate=0.02)
    tuner.fit((images, values), epochs=15)
    assert tuner.evaluate((images, values))["r2"] > 0.5
    assert tuner.predict(images).shape == (48,)


def test_class_weights_and_label_smoothing_change_the_loss(network, data):
    losses = {
        name: Finetuner(network, num_classes=3, **arguments).fit(data, epochs=1)["loss"][0]
        for name, arguments in {
            "plain": {},
            "weights": {"class_weights": [1.0, 5.0, 1.0]},
            "balanced": {"class_weights": "balanced"},
            "smooth": {"label_smoothing": 0.3},
        }.items()
    }
    assert losses["plain"] == pytest.approx(losses["balanced"], rel=1e-3)  # the classes are equally frequent
    assert len({round(losses[name], 4) for name in ("plain", "weights", "smooth")}) == 3


def test_nan_stops_at_its_step_with_the_weights_from_before(network, data):
    images, targets = data
    images = images.copy()
    images[20] = numpy.nan
    tuner = Finetuner(network, num_classes=3)
    before = {name: tensor.clone() for name, tensor in tuner.model.named_parameters()}
    with pytest.raises(NonFiniteError, match=r"samples \[.*\b20\b"):
        tuner.fit((images, targets), batch_size=48, epochs=1)
    for name, parameter in tuner.model.named_parameters():
        assert torch.equal(parameter, before[name])


def test_find_lr_leaves_everything_as_it_was(network, data):
    tuner = Finetuner(network, num_classes=3)
    tuner.fit(data, epochs=1)
    before = digests(tuner.model, "")
    moments = copy.deepcopy(tuner.optimizer.state_dict())
    curve = tuner.find_lr(data, batch_size=16, steps=30)
    assert 1e-7 <= curve.suggestion <= 1.0
    assert digests(tuner.model, "") == before
    for index, state in tuner.optimizer.state_dict()["state"].items():
        for name, value in state.items():
            assert torch.equal(value, moments["state"][index][name])


def test_save_and_load_in_another_process(network, data, tmp_path):
    tuner = Finetuner(network, num_classes=3, head_hidden_sizes=[8], dropout_rate=0.1, metrics=["accuracy"])
    tuner.fit(data, epochs=2)
    tuner.save(tmp_path / "tuned")
    numpy.save(tmp_path / "images.npy", data[0])
    torch.save(network.state_dict(), tmp_path / "base.pt")
    script = f"""
import sys, numpy, torch
sys.path.insert(0, {str(sys.path[0])!r})
from neurenix.transfer import Finetuner
from tests.unit.test_finetuner import SmallNetwork
tuner = Finetuner.load({str(tmp_path / "tuned")!r}, model=SmallNetwork())
numpy.save({str(tmp_path / "answer.npy")!r}, tuner.predict_proba(numpy.load({str(tmp_path / "images.npy")!r})))
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=".")
    numpy.testing.assert_array_equal(numpy.load(tmp_path / "answer.npy"), tuner.predict_proba(data[0]))


def test_a_loaded_tuner_goes_on(network, data, tmp_path):
    tuner = Finetuner(network, num_classes=3, freeze_layers=["conv1"])
    tuner.fit(data, epochs=2)
    tuner.save(tmp_path)
    again = Finetuner.load(tmp_path, model=network)
    assert again.settings == tuner.settings or again.settings.freeze_layers
    assert len(again.fit(data, epochs=1)) == 3
    assert not again.model.trunk.module.conv1[0].weight.requires_grad


def test_classes_have_to_stay_the_same(network, data):
    from neurenix.data import ArrayDataset

    tuner = Finetuner(network, num_classes=3)
    tuner.fit(ArrayDataset(*data, classes=["red", "green", "blue"]), epochs=1)
    assert set(tuner.predict(data[0])) <= {"red", "green", "blue"}
    for use in (tuner.evaluate, tuner.fit):
        with pytest.raises(LabelMismatchError, match="pink was not in training"):
            use(ArrayDataset(*data, classes=["pink", "green", "red"]))
    with pytest.raises(LabelMismatchError, match="num_classes has to be 4"):
        Finetuner(network, num_classes=3).fit(ArrayDataset(*data, classes=["a", "b", "c", "d"]))


def test_a_module_that_computes_after_its_head_is_refused(data):
    class WithSoftmax(SmallNetwork):
        def forward(self, images):
            return super().forward(images).softmax(1)

    with pytest.raises(Exception, match="after its layer 'fc'"):
        Finetuner(WithSoftmax(), num_classes=3).fit(data, epochs=1)


def test_summary_says_what_is_trained(network):
    tuner = Finetuner(network, num_classes=3, freeze_layers=["conv1"], learning_rate=0.01)
    summary = tuner.summary()
    rows = {row.name: row for row in summary.rows}
    assert rows["conv1"].trainable == 0 and rows["conv1"].learning_rate is None and not rows["conv1"].in_optimizer
    assert rows["fc"].trainable == rows["fc"].parameters == 16 * 3 + 3 and rows["fc"].in_optimizer
    assert summary.parameters == sum(p.numel() for p in tuner.model.parameters())
    assert "frozen" in str(summary)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"freeze_layers": ["layer9"]}, UnknownNameError, "layer1|layer2"),
        ({"optimizer": "adm"}, UnknownNameError, "adam"),
        ({"loss": "crossentropi"}, UnknownNameError, "cross_entropy"),
        ({"metrics": ["acuracy"]}, UnknownNameError, "accuracy"),
        ({"strategy": "progresive"}, UnknownNameError, "progressive"),
        ({"schedule": "cosin"}, UnknownNameError, "cosine"),
        ({"head_activation": "rellu"}, UnknownNameError, "relu"),
        ({"layer_learning_rates": {"fcc": 1e-3}}, UnknownNameError, "fc"),
        ({"layer_learning_rates": 7.0}, ConfigurationError, "0.75"),
        ({"learning_rate": -1.0}, ConfigurationError, "learning rate"),
        ({"dropout_rate": 1.5}, ConfigurationError, "dropout_rate=1.5"),
        ({"head_hidden_sizes": [0]}, ConfigurationError, "at least 1"),
        ({"precision": "fp8"}, ConfigurationError, "bf16"),
        ({"ema_decay": 2.0}, ConfigurationError, "ema_decay"),
        ({"accumulation_steps": 0}, ConfigurationError, "accumulation_steps"),
        ({"clip_norm": -1.0}, ConfigurationError, "clip_norm"),
        ({"label_smoothing": 1.0}, ConfigurationError, "label_smoothing"),
        ({"mixup_alpha": -0.1}, ConfigurationError, "mixup_alpha"),
        ({"class_weights": "ballanced"}, ConfigurationError, "balanced"),
        ({"class_weights": [1.0]}, ConfigurationError, "3 classes"),
        ({"norm_statistics": "none"}, ConfigurationError, "pretrained"),
        ({"unfreeze_by": "step"}, ConfigurationError, "plateau"),
        ({"strategy": "full", "freeze_layers": ["conv1"]}, ConfigurationError, "freeze_layers"),
        ({"num_classes": 0}, ConfigurationError, "at least 1"),
    ],
)
def test_wrong_arguments_are_named_at_once(network, arguments, error, message):
    with pytest.raises(error, match=message):
        Finetuner(network, **{"num_classes": 3, **arguments})


def test_freezing_everything_is_refused(network):
    with pytest.raises(ConfigurationError, match="nothing to train"):
        Finetuner(network, num_classes=3, freeze_layers=["*"])


def test_every_registered_callback_leaves_the_weights_alone(network, data, tmp_path):
    def trained(callbacks):
        tuner = Finetuner(network, num_classes=3)
        tuner.fit(data, data, epochs=2, callbacks=callbacks)
        return digests(tuner.model, "")

    arguments = {"ModelCheckpoint": {"filepath": tmp_path / "best"}, "CSVLogger": {"filepath": tmp_path / "log.csv"}}
    arguments["Tracker"] = {"tracker": SimpleNamespace(log=lambda values, step: None)}
    expected = trained([])
    for name, callback in CALLBACKS.items():
        assert trained([callback(**arguments.get(callback.__name__, {}))]) == expected, name


@pytest.mark.skipif(
    not os.environ.get("NEURENIX_PROVE"), reason="half a minute; tests/faults/test_processes.py is alike"
)
def test_two_processes_train_one_model_and_measure_every_sample(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(f"""
import sys
sys.path.insert(0, {str(sys.path[0])!r})
import numpy, torch
from accelerate import PartialState
from neurenix.storage import tensor_digest
from neurenix.transfer import Finetuner
from tests.unit.test_finetuner import SmallNetwork
torch.manual_seed(0)
network = SmallNetwork()
random = numpy.random.default_rng(0)
targets = numpy.arange(47) % 3
images = random.normal(size=(47, 3, 8, 8)).astype("float32")
images[numpy.arange(47), targets] += 1.0
tuner = Finetuner(network, num_classes=3, freeze_layers=["conv1"], learning_rate=0.01)
tuner.fit((images, targets), (images, targets), batch_size=8, epochs=2)
scores = tuner.evaluate((images, targets))
alone = (tuner.predict(images) == targets).mean()
same = abs(scores["accuracy"] - alone) < 1e-6
line = f"RANK {{PartialState().process_index}} {{tensor_digest(tuner.model.head.weight)[:16]}} {{same}}"
sys.stdout.write(line + chr(10))
""")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)],
        capture_output=True,
        text=True,
        env={**os.environ, "ACCELERATE_USE_CPU": "true"},
        timeout=150,
    )
    lines = sorted(line.split() for line in done.stdout.splitlines() if line.startswith("RANK"))
    assert len(lines) == 2, done.stderr[-3000:]
    assert lines[0][2] == lines[1][2], "the processes ended with different weights"
    assert [line[3] for line in lines] == ["True", "True"], lines
