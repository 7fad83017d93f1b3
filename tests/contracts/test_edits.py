"""What every edit promises on every kind of model: nothing changes before it works, and all of it can be undone."""

from __future__ import annotations

import copy
import functools
import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from tests.contracts.test_tuners import OwnNetwork, own, random_weights
from tests.families.language_checkpoints import write_gpt2, write_t5
from tests.local_hub import write_text_checkpoint
from torch import Tensor, nn

from neurenix.models import PretrainedModel, adopt
from neurenix.storage import tensor_digest
from neurenix.transfer import (
    Finetuner,
    LoraTuner,
    add_layer,
    list_edits,
    load_pretrained_model,
    prune_depth,
    remove_layer,
    replace_layer,
    replay_edits,
    resize_vocabulary,
    swap_activations,
    swap_norms,
    undo_edit,
)
from neurenix.transfer.base_state import base_name
from neurenix.transfer.surgery import EDITS
from neurenix.transfer.surgery._trial import example_inputs

Edit = Callable[[PretrainedModel], Any]
OWN_INPUTS = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
TOKENS = ["<protein>", "zyzzyva"]


def written(name: str, write: Callable[[Path], Any]) -> Callable[[], PretrainedModel]:
    folder = Path(tempfile.mkdtemp(prefix="neurenix-edits-"))

    def make() -> PretrainedModel:
        if not any(folder.iterdir()):
            write(folder)
        return load_pretrained_model(name, weights=folder, device="cpu")

    return make


FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "mobilenet": random_weights("mobilenetv2"),
    "vit": random_weights("vit-tiny-patch16-224"),
    "bert": written("bert-base-uncased", partial(write_text_checkpoint, kind="bert")),
    "gpt2": written("gpt2", write_gpt2),
    "t5": written("t5-small", write_t5),
    "own network": lambda: adopt(own(OwnNetwork)()),
}
BLOCKS = {
    "mobilenet": ("blocks.2", "blocks.2.1", 32),
    "vit": ("blocks.3", "blocks.3", 192),
    "bert": ("encoder.layer.0", "encoder.layer.1", 32),
    "gpt2": ("h.0", "h.1", 16),
    "t5": ("encoder.block.0", "encoder.block.1", 16),
    "own network": ("blocks.0", "blocks.1", 8),
}
MAPS = {"mobilenet", "own network"}
TEXTS = {"bert", "gpt2", "t5"}


def widening(family: str) -> nn.Module:
    width = BLOCKS[family][2]
    if family in MAPS:
        return nn.Sequential(nn.Conv2d(width, 4, 1), nn.ReLU(), nn.Conv2d(4, width, 1))
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4), nn.GELU(), nn.Linear(4, width))


def inputs_of(family: str) -> Any:
    return OWN_INPUTS if family == "own network" else None


VARIANTS: dict[str, tuple[Callable[[PretrainedModel, str], Any], set[str]]] = {
    "add behind": (
        lambda model, family: add_layer(model, widening(family), after=BLOCKS[family][0], inputs=inputs_of(family)),
        set(FAMILIES),
    ),
    "add in front": (
        lambda model, family: add_layer(
            model,
            widening(family),
            before=BLOCKS[family][0],
            residual=family != "own network",
            inputs=inputs_of(family),
        ),
        set(FAMILIES) - {"mobilenet"},
    ),
    "add residual": (
        lambda model, family: add_layer(
            model, widening(family), after=BLOCKS[family][0], residual=True, inputs=inputs_of(family)
        ),
        set(FAMILIES),
    ),
    "remove": (
        lambda model, family: remove_layer(model, BLOCKS[family][1], inputs=inputs_of(family)),
        set(FAMILIES),
    ),
    "remove with a bridge": (
        lambda model, family: remove_layer(model, "blocks.5", bridge=True),
        {"mobilenet"},
    ),
    "replace": (
        lambda model, family: replace_layer(
            model,
            (nn.BatchNorm2d, nn.LayerNorm),
            lambda old: nn.Identity(),
            inputs=inputs_of(family),
        ),
        {"bert", "gpt2", "own network"},
    ),
    "group norms": (
        lambda model, family: swap_norms(model, "group", inputs=inputs_of(family)),
        MAPS,
    ),
    "fixed norms": (
        lambda model, family: swap_norms(model, "fixed", inputs=inputs_of(family)),
        MAPS,
    ),
    "rms norms": (lambda model, family: swap_norms(model, "rms"), {"bert", "gpt2"}),
    "activations": (
        lambda model, family: swap_activations(model, "silu"),
        {"mobilenet", "bert"},
    ),
    "vocabulary": (lambda model, family: resize_vocabulary(model, TOKENS), TEXTS),
    "depth": (
        lambda model, family: prune_depth(model, 1, batch(family)),
        {"mobilenet", "bert", "own network"},
    ),
}
PAIRS = [
    (variant, family)
    for variant, (_, families) in VARIANTS.items()
    for family in FAMILIES
    if family in families and (family != "vit" or variant in ("add residual", "remove"))
]
every_pair = pytest.mark.parametrize(("variant", "family"), PAIRS)


@functools.cache
def base(family: str) -> PretrainedModel:
    return FAMILIES[family]().eval()


@functools.cache
def batch(family: str) -> Any:
    if family == "own network":
        return OWN_INPUTS
    example = example_inputs(base(family))
    if isinstance(example, Tensor):
        return torch.randn(example.shape, generator=torch.Generator().manual_seed(0))
    return example


def answers(model: PretrainedModel, family: str) -> Tensor:
    with torch.no_grad():
        return model.eval().embed(batch(family))


@functools.cache
def first(variant: str, family: str) -> PretrainedModel:
    model = copy.deepcopy(base(family))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        VARIANTS[variant][0](model, family)
    return model


def edited(variant: str, family: str) -> PretrainedModel:
    return copy.deepcopy(first(variant, family))


def fingerprint(model: nn.Module) -> list[Any]:
    """Names, classes, bytes, settings of layers: all that an edit could leave behind."""
    modules = [(name, type(part).__name__, part.training, part.extra_repr()) for name, part in model.named_modules()]
    return [modules, {name: tensor_digest(tensor) for name, tensor in model.state_dict().items()}]


def test_every_edit_has_a_case() -> None:
    done = {
        list_edits(first(variant, family))[-1]["edit"] for variant, family in PAIRS if family in ("mobilenet", "bert")
    }
    assert done == {name for name in EDITS if EDITS[name].__module__.startswith("neurenix.transfer.surgery")}


@every_pair
def test_undone_every_byte_is_there_again(variant: str, family: str) -> None:
    model = edited(variant, family)
    assert fingerprint(model) != fingerprint(base(family))
    record = undo_edit(model)
    assert json.loads(json.dumps(record)) == json.loads(json.dumps(list_edits(edited(variant, family))[0]))
    assert fingerprint(model) == fingerprint(base(family)) and list_edits(model) == [] and model.edits is None
    assert torch.equal(answers(model, family), answers(base(family), family))


@every_pair
def test_done_again_on_a_fresh_base_it_gives_the_same(variant: str, family: str) -> None:
    model, fresh = edited(variant, family), copy.deepcopy(base(family))
    replay_edits(fresh, model, inputs=inputs_of(family))
    assert fingerprint(fresh) == fingerprint(model)
    assert torch.equal(answers(fresh, family), answers(model, family))
    records = json.loads(json.dumps(list_edits(model)))
    again, state = copy.deepcopy(base(family)), torch.get_rng_state()
    replay_edits(again, records, inputs=inputs_of(family))
    assert fingerprint(again)[0] == fingerprint(model)[0]
    assert torch.equal(torch.get_rng_state(), state)


@every_pair
def test_saved_with_the_model_and_undone_after_loading(variant: str, family: str, tmp_path: Path) -> None:
    model = edited(variant, family)
    tuner = Finetuner(model, num_classes=3, loss="cross_entropy")
    tuner.save(tmp_path)
    module = FAMILIES[family]() if family == "own network" else None
    loaded = Finetuner.load(tmp_path, model=module, device="cpu").model
    assert torch.equal(answers(loaded, family), answers(tuner.model, family))
    assert json.dumps(list_edits(loaded)) == json.dumps(list_edits(model))
    trunk = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("trunk.")}
    assert {name for name in loaded.state_dict() if name.startswith("trunk.")} == set(trunk)
    undo_edit(loaded)
    assert torch.equal(answers(loaded, family), answers(base(family), family))
    if family in TEXTS:  # whose base can be had again, so that only what is new is written
        changed = json.loads((tmp_path / "neurenix.json").read_text())["tensors"]["changed"]
        there = {name: tensor_digest(tensor) for name, tensor in base(family).state_dict().items()}
        made = json.dumps(list_edits(model)[0].get("layers", {}))
        again = [
            name for name in changed if there.get(base_name(name)) == tensor_digest(tuner.model.state_dict()[name])
        ]
        assert [name for name in again if name.rpartition(".")[0] not in made and not name.startswith("head.")] == []


@every_pair
def test_a_copy_is_undone_by_itself(variant: str, family: str) -> None:
    model = edited(variant, family)
    before = fingerprint(model)
    twin = copy.deepcopy(model)
    undo_edit(twin)
    assert fingerprint(twin) == fingerprint(base(family)) and fingerprint(model) == before
    assert not {id(part) for part in twin.modules()} & {id(part) for part in model.modules()}


@every_pair
def test_an_optimizer_follows_there_and_back(variant: str, family: str) -> None:
    model = copy.deepcopy(base(family)).requires_grad_()
    parts = [list(model.trunk.parameters()), list(model.head.parameters())]
    optimizer = torch.optim.AdamW([{"params": part} for part in parts if part], lr=1e-4)
    learn(model, family, optimizer)
    moments = {id(parameter): optimizer.state[parameter]["exp_avg"] for parameter in optimizer.state}
    before = [[id(parameter) for parameter in group["params"]] for group in optimizer.param_groups]
    records = list_edits(edited(variant, family))
    replay_edits(model, records, optimizer, inputs_of(family))
    trained = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(trained) == sorted(id(parameter) for parameter in model.parameters())
    assert set(map(id, optimizer.state)) <= set(trained)
    assert all(optimizer.state[p]["exp_avg"] is moments[id(p)] for p in optimizer.state if id(p) in moments)
    learn(model, family, optimizer)
    undo_edit(model, optimizer)
    after = [[id(parameter) for parameter in group["params"]] for group in optimizer.param_groups]
    assert [sorted(group) for group in after] == [sorted(group) for group in before]
    learn(model, family, optimizer)


def learn(model: PretrainedModel, family: str, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model.eval().embed(batch(family)).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_residual_layer_begins_as_nothing(family: str) -> None:
    model = edited("add residual", family)
    assert torch.equal(answers(model, family), answers(base(family), family))
    name = f"{BLOCKS[family][0]}.added"
    remove_layer(model, name, inputs=inputs_of(family))
    assert fingerprint(model) == fingerprint(base(family))


@pytest.mark.parametrize("family", sorted(MAPS))
def test_fixed_norms_give_what_batch_norms_gave(family: str) -> None:
    assert torch.equal(answers(edited("fixed norms", family), family), answers(base(family), family))


def test_edited_models_with_real_weights_train(tmp_path: Path) -> None:
    model = load_pretrained_model("efficientnet-lite0", device="cpu", input_shape=(32, 32, 3))
    add_layer(
        model, nn.Sequential(nn.Conv2d(40, 4, 1), nn.ReLU(), nn.Conv2d(4, 40, 1)), after="blocks.2", residual=True
    )
    remove_layer(model, "blocks.2.1")
    images = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    tuned = LoraTuner(model, num_classes=3, precision="fp32")
    history = tuned.fit((images, numpy.arange(6) % 3), epochs=6, batch_size=6, run=False)
    assert history["loss"][-1] < history["loss"][0]
    tuned.save(tmp_path)
    assert (LoraTuner.load(tmp_path, device="cpu").predict_proba(images) == tuned.predict_proba(images)).all()
