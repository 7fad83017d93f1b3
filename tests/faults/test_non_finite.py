"""NaN and infinity: found in their step, with the samples and the layer, and the weights from before it kept."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.faults.jobs import Noisy, network
from torch import nn

from neurenix.callbacks import Callback, EarlyStopping, ModelCheckpoint
from neurenix.errors import NeurenixWarning, NonFiniteError
from neurenix.storage import tensor_digest
from neurenix.training import History
from neurenix.transfer import Finetuner


class Poisoned(nn.Module):
    """Gives (or sends back) something that is not finite in the n-th step; two samples are a look, and no step."""

    def __init__(self, value: float, at: int, backwards: bool = False) -> None:
        super().__init__()
        self.value, self.at, self.backwards, self.passes = value, at, backwards, 0

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        self.passes += self.training and torch.is_grad_enabled() and len(features) > 2
        if self.passes != self.at or not self.training:
            return features
        if self.backwards:
            features.register_hook(lambda gradient: gradient * self.value)
            return features
        return features * self.value


class Remember(Callback):
    """Digests of weights and buffers after every step."""

    def __init__(self) -> None:
        self.last: dict[str, str] = {}
        self.steps = 0

    def on_train_begin(self, logs: Any) -> None:
        self.note()

    def on_train_batch_end(self, batch: int, logs: Any) -> None:
        self.steps += 1
        self.note()

    def note(self) -> None:
        self.last = {name: tensor_digest(tensor) for name, tensor in self.run.snapshot().items()}


def state(tuner: Finetuner) -> dict[str, str]:
    return {name: tensor_digest(tensor) for name, tensor in tuner.model.state_dict().items()}


def with_poison(*arguments: Any, **options: Any) -> nn.Module:
    body = network()
    return nn.Sequential(body[0], Poisoned(*arguments, **options), body[1], body[3])


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=str)
@pytest.mark.parametrize("step", [0, 3, 9, 14])
@pytest.mark.parametrize("options", [{}, {"ema_decay": 0.9, "mixup_alpha": 0.3}], ids=["plain", "ema"])
def test_a_loss_that_is_not_finite(value: float, step: int, options: dict[str, Any]) -> None:
    remember = Remember()
    tuner = Finetuner(with_poison(value, step + 1), None, learning_rate=0.01, **options)
    with pytest.raises(NonFiniteError) as caught:
        tuner.fit(Noisy(40), batch_size=8, epochs=4, callbacks=[remember], run=False)
    message = str(caught.value)
    assert f"at step {step} (epoch {step // 5})" in message and remember.steps == step
    assert len(json.loads(re.findall(r"on samples (\[[\d, ]+\])", message)[0])) == 8
    assert "the first layer to give NaN or infinity is 1" in message
    assert state(tuner) == remember.last


@pytest.mark.parametrize("step", [0, 7])
def test_a_gradient_that_is_not_finite(step: int) -> None:
    remember = Remember()
    tuner = Finetuner(with_poison(float("inf"), step + 1, backwards=True), None, learning_rate=0.01)
    with pytest.raises(NonFiniteError, match=rf"gradient became NaN or infinite at step {step} .* in 0\.0\.") as caught:
        tuner.fit(Noisy(40), batch_size=8, epochs=4, callbacks=[remember], run=False)
    assert "on samples [" in str(caught.value)
    assert state(tuner) == remember.last


@pytest.mark.parametrize("value", [float("nan"), float("-inf")], ids=str)
def test_an_input_that_is_not_finite_is_named(value: float) -> None:
    data = Noisy(40)
    data.images[23, 1, 4, 4] = value
    tuner = Finetuner(network(), 3)
    with pytest.raises(NonFiniteError, match=r"on samples \[23\], whose inputs hold NaN or infinity"):
        tuner.fit(data, batch_size=8, epochs=1, run=False)


@pytest.mark.parametrize("place", ["0.0.weight", "1.1.running_var"])
def test_weights_that_are_not_finite_are_named(place: str) -> None:
    module = network()
    module.state_dict()[place].view(-1)[3] = float("nan")
    tuner = Finetuner(module, 3)
    with pytest.raises(NonFiniteError, match=rf"1 tensors of the model hold NaN or infinity .*{re.escape(place)}"):
        tuner.fit(Noisy(40), batch_size=8, epochs=1, run=False)


def test_half_precision_that_overflows_is_found() -> None:
    remember = Remember()
    tuner = Finetuner(with_poison(3e38, 3), None, learning_rate=0.01, precision="bf16")
    with pytest.raises(NonFiniteError, match="at step 2 "):
        tuner.fit(Noisy(40), batch_size=8, epochs=1, callbacks=[remember], run=False)
    assert state(tuner) == remember.last


def test_a_metric_that_is_nan_is_shown_and_never_the_best(tmp_path: Path) -> None:
    """One class in validation: AUROC has no value."""
    best = ModelCheckpoint(tmp_path / "best", monitor="val_auroc", save_best_only=True)
    stopping = EarlyStopping(monitor="val_auroc", patience=1)
    tuner = Finetuner(network(), 3, metrics=["auroc"])
    one_class = [(image, 1) for image in Noisy(9).images]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", NeurenixWarning)
        tuner.fit(Noisy(40), one_class, batch_size=8, epochs=3, callbacks=[best, stopping], run=tmp_path / "run")
    assert any("val_auroc is nan in epoch 1" in str(entry.message) for entry in caught)
    assert best.last_saved is None and not (tmp_path / "best").exists()
    assert all(value != value for value in tuner.history["val_auroc"]) and len(tuner.history) == 2
    stored = json.loads((tmp_path / "run" / "history.json").read_text())
    assert [epoch["val_auroc"] for epoch in stored] == ["NaN", "NaN"]
    loaded = Finetuner.load(tmp_path / "run", model=network())
    assert loaded.history["val_auroc"][0] != loaded.history["val_auroc"][0]


def test_history_keeps_its_numbers_as_json() -> None:
    epochs = [{"loss": 0.5, "a": float("nan"), "b": float("inf"), "c": float("-inf"), "m": [[1, float("nan")]]}]
    again = History.from_json(json.loads(json.dumps(History(epochs).as_json(), allow_nan=False)))
    assert repr(again.epochs) == repr(epochs)
