"""What every kind of head promises, on backbones of every make."""

from __future__ import annotations

import copy
import functools
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from tests.contracts.test_edits import written
from tests.contracts.test_tuners import random_weights
from tests.local_hub import write_text_checkpoint
from torch import Tensor, nn
from torchvision.transforms.functional import normalize

from neurenix.errors import ConfigurationError, LabelMismatchError
from neurenix.models import PretrainedModel, adopt
from neurenix.transfer import Finetuner, LoraTuner, attach_head, heads, list_heads
from neurenix.transfer.heads import HEADS, HeadKind
from neurenix.transfer.heads._begin import learn_units
from neurenix.transfer.heads._kind import kind_from, record_of

SIDE, SAMPLES, CLASSES = 32, 12, 3


class OwnNetwork(nn.Module):
    """A network of the user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 16, 3, stride=2), nn.Conv2d(16, 24, 3, stride=2)
        self.head = nn.Linear(24, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(self.stem(images).relu()).relu().mean((2, 3)))


def own() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return OwnNetwork()


FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "own network": own,
    "resnet": random_weights("resnet18"),
    "vit": random_weights("vit-tiny-patch16-224"),
    "bert": written("bert-base-uncased", partial(write_text_checkpoint, kind="bert")),
}
KINDS: dict[str, HeadKind] = {
    "linear": heads.Linear(num_outputs=CLASSES),
    "linear, zero": heads.Linear(num_outputs=CLASSES, start="zero", dropout_rate=0.1),
    "linear, closed form": heads.Linear(num_outputs=CLASSES, start="closed_form"),
    "mlp": heads.MLP(num_outputs=CLASSES, hidden_sizes=[16], activation="gelu"),
    "cosine": heads.Cosine(num_outputs=CLASSES),
    "cosine, imprinted": heads.Cosine(num_outputs=CLASSES, start="closed_form", scale=10.0, learn_scale=False),
    "prototype": heads.Prototype(num_outputs=CLASSES),
    "prototype, cosine": heads.Prototype(num_outputs=CLASSES, distance="cosine", scale=5.0),
    "nearest neighbours": heads.NearestNeighbours(num_outputs=CLASSES, neighbours=3),
    "multi-label": heads.MultiLabel(num_outputs=CLASSES),
    "ordinal": heads.Ordinal(num_outputs=CLASSES),
    "ordinal, closed form": heads.Ordinal(num_outputs=CLASSES, start="closed_form"),
    "regression": heads.Regression(num_outputs=2, units=["mm", "years"]),
    "regression, closed form": heads.Regression(num_outputs=2, start="closed_form"),
    "quantile": heads.Quantile(num_outputs=2, levels=[0.1, 0.5, 0.9]),
    "quantile, closed form": heads.Quantile(num_outputs=2, levels=[0.2, 0.5], start="closed_form"),
    "gaussian": heads.Gaussian(num_outputs=2),
    "gaussian, closed form": heads.Gaussian(num_outputs=2, start="closed_form"),
}
FAST = [name for name in KINDS if "," not in name]
VARIED = {
    "own network": list(KINDS),
    "vit": ["mlp", "prototype", "ordinal", "quantile"],
    "resnet": ["multi-label", "gaussian"],
    "bert": ["linear", "nearest neighbours", "regression"],
}
PAIRS = [(kind, family) for family, kinds in VARIED.items() for kind in kinds]
every_pair = pytest.mark.parametrize(("name", "family"), PAIRS)
every_kind = pytest.mark.parametrize("name", KINDS)
SHAPES: dict[str, tuple[int, ...]] = {
    "multi_class": (SAMPLES,),
    "multi_label": (SAMPLES, CLASSES),
    "ordinal": (SAMPLES,),
    "regression": (SAMPLES, 2),
}


@functools.cache
def base(family: str) -> nn.Module:
    return FAMILIES[family]()


@functools.cache
def inputs(family: str) -> Any:
    if family == "bert":
        words = ["a good film", "bad", "so long that it is dull", "fine", "worse than the book was", "it is what it is"]
        return [f"{word} {number}" for number in (1, 2) for word in words]
    random = numpy.random.default_rng(0)
    images = torch.from_numpy(random.uniform(size=(SAMPLES, 3, SIDE, SIDE)).astype("float32"))
    images += 0.2 * (torch.arange(SAMPLES) % CLASSES)[:, None, None, None]
    mean, std = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) if family == "resnet" else ((0.5,) * 3, (0.5,) * 3)
    return normalize((images / 1.4).clamp(0, 1), mean, std)


def targets(kind: HeadKind) -> Any:
    numbers = torch.arange(SAMPLES) % CLASSES
    if kind.task == "multi_label":
        return nn.functional.one_hot(numbers, CLASSES)
    if kind.task == "regression":
        return torch.stack([1000 + 20.0 * numbers, -3 - 0.1 * numbers], 1)
    return numbers


def data(name: str, family: str) -> Any:
    return inputs(family), targets(KINDS[name])


def make(name: str, family: str, **options: Any) -> Finetuner:
    return Finetuner(base(family), head=KINDS[name], **{"strategy": "head", "precision": "fp32", **options})


@functools.cache
def trained(name: str, family: str) -> Finetuner:
    tuner = make(name, family)
    tuner.fit(data(name, family), batch_size=6, epochs=2, run=False)
    return tuner


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_every_registered_kind_that_reads_a_vector_is_here() -> None:
    assert {record_of(kind)["kind"] for kind in KINDS.values()} >= {
        name for name, kind in HEADS.items() if kind.task in (*SHAPES, None)
    }


def test_kinds_are_listed_by_task() -> None:
    assert {"cosine", "linear", "prototype"} <= set(list_heads("multi_class")) <= set(list_heads())
    assert "ordinal" not in list_heads("multi_class")
    with pytest.raises(ConfigurationError, match="the heads here do"):
        list_heads("poetry")


@every_kind
def test_a_kind_is_a_record_that_json_can_hold(name: str) -> None:
    record = json.loads(json.dumps(record_of(KINDS[name])))
    assert kind_from(record) == KINDS[name]


@every_pair
def test_training_lowers_the_loss(name: str, family: str) -> None:
    tuner = trained(name, family)
    if not KINDS[name].learns:
        assert tuner.evaluate(data(name, family))["accuracy"] > 0.5
        return
    fresh = make(name, family)
    learn_units(fresh.model, lambda: list(zip(*data(name, family), strict=True)))
    assert tuner.evaluate(data(name, family))["loss"] < fresh.evaluate(data(name, family))["loss"]


@pytest.mark.parametrize("name", [name for name in FAST if KINDS[name].learns])
def test_the_whole_network_learns_below_it(name: str) -> None:
    tuner = make(name, "own network", strategy="full", learning_rate=3e-3)
    before = state(tuner.model.trunk)
    losses = tuner.fit(data(name, "own network"), batch_size=6, epochs=8, run=False)["loss"]
    assert losses[-1] < losses[0]
    assert not same(before, state(tuner.model.trunk))


@every_pair
def test_answers_have_their_shape(name: str, family: str) -> None:
    tuner, kind = trained(name, family), KINDS[name]
    answers = tuner.predict(inputs(family))
    expected = SHAPES[kind.task or "multi_class"]
    assert answers.shape == (expected + (len(kind.levels),) if isinstance(kind, heads.Quantile) else expected)
    if kind.task != "regression":
        shares = tuner.predict_proba(inputs(family))
        assert shares.shape == (SAMPLES, CLASSES)
        assert kind.task == "multi_label" or numpy.allclose(shares.sum(1), 1, atol=1e-5)
    if isinstance(kind, heads.Gaussian):
        assert bool((tuner.predict_sd(inputs(family)) > 0).all())


@every_pair
def test_saved_and_loaded_gives_the_same_bits(name: str, family: str, tmp_path: Path) -> None:
    tuner = trained(name, family)
    tuner.save(tmp_path)
    loaded = Finetuner.load(tmp_path, model=base(family) if family == "own network" else None)
    assert same(state(tuner.model.head), state(loaded.model.head))
    assert numpy.array_equal(tuner.predict(inputs(family)), loaded.predict(inputs(family)))
    assert loaded.model.head_record == tuner.model.head_record


@every_kind
def test_an_attached_head_comes_back_with_what_is_saved(name: str, tmp_path: Path) -> None:
    before = state(base("own network"))
    model = attach_head(base("own network"), KINDS[name])
    assert same(before, state(base("own network")))
    tuner = Finetuner(model)
    assert tuner.task == (KINDS[name].task or "multi_class")
    tuner.fit(data(name, "own network"), epochs=1, run=False)
    tuner.save(tmp_path)
    loaded = Finetuner.load(tmp_path, model=base("own network"))
    assert type(loaded.model.head) is type(tuner.model.head)
    assert numpy.array_equal(tuner.predict(inputs("own network")), loaded.predict(inputs("own network")))


@every_kind
def test_a_copy_answers_alike_and_shares_nothing(name: str) -> None:
    model = trained(name, "own network").model
    copied = copy.deepcopy(model)
    with torch.no_grad():
        assert torch.equal(model(inputs("own network")), copied(inputs("own network")))
    own_tensors = {tensor.data_ptr() for tensor in model.state_dict().values() if tensor.numel()}
    assert not own_tensors & {tensor.data_ptr() for tensor in copied.state_dict().values()}


@every_kind
def test_the_same_seed_gives_the_same_head(name: str) -> None:
    one, other, third = (attach_head(base("own network"), KINDS[name], seed=seed) for seed in (3, 3, 4))
    assert same(state(one.head), state(other.head))
    drawn = [tensor for tensor in one.head.parameters() if bool(tensor.any())]
    assert same(state(one.head), state(third.head)) == (not drawn)


@every_pair
def test_frozen_layers_run_once_to_the_same_bits(name: str, family: str, capsys: pytest.CaptureFixture[str]) -> None:
    if not KINDS[name].learns:
        return
    fits = [make(name, family, frozen_prefix=use) for use in ("always", "never")]
    for tuner in fits:
        tuner.fit(data(name, family), batch_size=6, epochs=2, run=False)
    assert "run once for each" in capsys.readouterr().out
    once, ordinary = (tuner.model.head.state_dict() for tuner in fits)
    for key, tensor in once.items():
        torch.testing.assert_close(tensor, ordinary[key], rtol=1e-4, atol=1e-5)


@every_kind
def test_wrong_targets_are_named_and_change_nothing(name: str) -> None:
    tuner, kind = make(name, "own network"), KINDS[name]
    before = state(tuner.model)
    wrong = torch.arange(SAMPLES) if kind.task in (None, "multi_class", "ordinal") else torch.ones(SAMPLES, 5)
    with pytest.raises(LabelMismatchError, match="num_classes|num_outputs"):
        tuner.fit((inputs("own network"), wrong), run=False)
    assert same(before, state(tuner.model))
    assert not tuner.history.epochs


@every_kind
def test_two_numbers_of_outputs_are_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="leave one out"):
        make(name, "own network", num_classes=7)


@every_kind
def test_the_loss_of_another_task_is_refused(name: str) -> None:
    loss = "cross_entropy" if KINDS[name].task in ("regression", "ordinal", "multi_label") else "own"
    with pytest.raises(ConfigurationError, match="possible"):
        make(name, "own network", loss=loss)


@pytest.mark.parametrize("name", FAST)
def test_a_name_alone_takes_its_outputs_from_the_data(name: str) -> None:
    wanted = targets(KINDS[name])
    tuner = Finetuner(base("own network"), head=record_of(KINDS[name])["kind"])
    tuner.fit((inputs("own network"), wanted), epochs=1, run=False)
    assert tuner.num_outputs == (wanted.shape[1] if wanted.ndim > 1 else CLASSES)


def test_a_tuner_of_a_method_takes_heads_too() -> None:
    tuner = LoraTuner(base("vit"), head=heads.Cosine(num_outputs=CLASSES, start="closed_form"))
    tuner.fit(data("cosine", "vit"), epochs=1, run=False)
    assert tuner.predict(inputs("vit")).shape == (SAMPLES,)
    with pytest.raises(ConfigurationError, match="nothing to train"):
        LoraTuner(base("vit"), head=KINDS["nearest neighbours"])


def test_in_a_new_process(tmp_path: Path) -> None:
    tuner = trained("nearest neighbours", "vit")
    tuner.save(tmp_path / "tuning")
    numpy.savez(tmp_path / "data.npz", inputs=inputs("vit").numpy(), expected=tuner.predict(inputs("vit")))
    code = (
        "import numpy, torch\nfrom neurenix.transfer import Finetuner\n"
        f"data = numpy.load({str(tmp_path / 'data.npz')!r})\n"
        f"tuner = Finetuner.load({str(tmp_path / 'tuning')!r}, device='cpu')\n"
        "assert numpy.array_equal(tuner.predict(torch.from_numpy(data['inputs'])), data['expected'])\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_model_with_an_attached_head_is_one() -> None:
    model = attach_head(base("resnet"), heads.Linear(num_outputs=2), categories=["no", "yes"])
    assert isinstance(model, PretrainedModel)
    assert model.categories == ("no", "yes")
    assert adopt(base("resnet")).categories == ()
