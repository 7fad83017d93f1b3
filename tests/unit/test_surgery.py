"""Layers added, removed and replaced: wrong uses, ties, hooks, optimizers, and what the numbers have to be."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.contracts.test_edits import FAMILIES, OWN_INPUTS, fingerprint
from tests.contracts.test_tuners import random_weights
from torch import Tensor, nn

from neurenix.errors import ConfigurationError, EditError, NeurenixError, UnknownNameError
from neurenix.models import PretrainedModel, adopt
from neurenix.transfer import (
    Finetuner,
    add_layer,
    block_influence,
    layer_names,
    list_edits,
    load_pretrained_model,
    prune_depth,
    register_layer,
    remove_layer,
    replace_layer,
    replay_edits,
    resize_vocabulary,
    swap_activations,
    swap_norms,
    undo_edit,
)
from neurenix.transfer.surgery._edit import Trial
from neurenix.transfer.surgery._layer_records import LAYERS, build_layer, describe_layer


class Tied(nn.Module):
    """Two layers that share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)
        self.second.weight = self.first.weight
        self.head = nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.second(self.first(inputs)))


class Strange(nn.Module):
    """A layer that keeps nothing of what it was made with."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.linear(inputs)


@pytest.fixture(scope="module")
def resnet() -> PretrainedModel:
    return random_weights("resnet18")()


@pytest.fixture(scope="module")
def text() -> PretrainedModel:
    return FAMILIES["gpt2"]()


def tied() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Tied()


SIX = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
linear, point = (lambda: nn.Linear(128, 128)), (lambda: nn.Conv2d(128, 128, 1))

WRONG: dict[str, tuple[Callable[[Any], Any], type[NeurenixError], str]] = {
    "no side": (lambda m: add_layer(m, point()), ConfigurationError, "after=… or before=…"),
    "both sides": (lambda m: add_layer(m, point(), after="layer1", before="layer2"), ConfigurationError, "one of"),
    "an unknown place": (lambda m: add_layer(m, point(), after="layer9"), UnknownNameError, "layer2"),
    "several places": (lambda m: add_layer(m, point(), after="layer*"), ConfigurationError, "one is needed"),
    "a place that is no text": (lambda m: add_layer(m, point(), after=2), ConfigurationError, "type int"),
    "a class for a layer": (lambda m: add_layer(m, nn.ReLU, after="layer1"), ConfigurationError, "takes a layer"),
    "a name for a layer": (lambda m: add_layer(m, "relu", after="layer1"), ConfigurationError, "takes a layer"),
    "too wide": (lambda m: add_layer(m, nn.Conv2d(128, 64, 1), after="layer2"), EditError, "layer3.0.conv1"),
    "of another layout": (lambda m: add_layer(m, linear(), after="layer2"), EditError, "layer2.added"),
    "a taken name": (lambda m: add_layer(m, point(), after="layer2", name="0"), EditError, "name"),
    "a name of the class": (lambda m: add_layer(m, point(), after="layer2", name="forward"), EditError, "taken"),
    "no identifier": (lambda m: add_layer(m, point(), after="layer2", name="a.b"), EditError, "a.b"),
    "an unknown class": (lambda m: add_layer(m, Strange(128), after="layer2"), EditError, "register_layer"),
    "a residual without weights": (
        lambda m: add_layer(m, nn.ReLU(), after="layer2", residual=True),
        EditError,
        "with weights",
    ),
    "a residual of another shape": (
        lambda m: add_layer(m, nn.Conv2d(128, 64, 1), after="layer2", residual=True),
        EditError,
        "one shape",
    ),
    "a residual that is dead": (
        lambda m: add_layer(m, nn.Sequential(point(), nn.ReLU()), after="layer2", residual=True),
        EditError,
        "can learn",
    ),
    "a residual that is never zero": (
        lambda m: add_layer(m, nn.Sequential(point(), nn.Sigmoid()), after="layer2", residual=True),
        EditError,
        "zeros",
    ),
    "a residual that cannot read": (
        lambda m: add_layer(m, nn.Conv2d(3, 3, 1), after="layer2", residual=True),
        EditError,
        "cannot read",
    ),
    "removing what changes shapes": (lambda m: remove_layer(m, "layer2"), EditError, "bridge=True"),
    "removing nothing known": (lambda m: remove_layer(m, "blocks.3"), UnknownNameError, "layer"),
    "removing a class that is not there": (lambda m: remove_layer(m, nn.LSTM), EditError, "LSTM"),
    "removing by a wrong kind": (lambda m: remove_layer(m, 3), ConfigurationError, "3"),
    "removing no classes": (lambda m: remove_layer(m, (nn.ReLU, 3)), ConfigurationError, "no classes"),
    "removing the head": (lambda m: remove_layer(m, "fc"), ConfigurationError, "include_top=False"),
    "replacing by a class": (lambda m: replace_layer(m, nn.ReLU, nn.GELU), ConfigurationError, "GELU"),
    "replacing by nothing": (lambda m: replace_layer(m, nn.ReLU, lambda old: None), ConfigurationError, "None"),
    "replacing by what does not fit": (
        lambda m: replace_layer(m, "layer3.0.conv1", nn.Conv2d(128, 99, 3)),
        EditError,
        "layer3.0.bn1",
    ),
    "replacing a parameter": (lambda m: replace_layer(m, "conv1.weight", nn.ReLU()), NeurenixError, "conv1"),
    "no such norm": (lambda m: swap_norms(m, "lyer"), UnknownNameError, "group"),
    "norms that are not there": (lambda m: swap_norms(m, "rms"), EditError, "BatchNorm2d"),
    "no such activation": (lambda m: swap_activations(m, "rellu"), UnknownNameError, "relu"),
    "activations that are not there": (lambda m: swap_activations(m, "gelu", "layer1.0.conv1"), EditError, "no act"),
    "too much depth": (lambda m: prune_depth(m, 99, torch.zeros(2, 3, 32, 32)), ConfigurationError, "5 blocks"),
    "no depth": (lambda m: prune_depth(m, 0, torch.zeros(2, 3, 32, 32)), ConfigurationError, "count=0"),
    "words for an image model": (lambda m: resize_vocabulary(m, ["dog"]), EditError, "tokenizer"),
    "inputs of another kind": (
        lambda m: add_layer(m, point(), after="layer2", inputs=torch.zeros(2, 7)),
        ConfigurationError,
        "cannot read the inputs",
    ),
    "nothing to undo": (undo_edit, EditError, "nothing to undo"),
    "a record of no edit": (lambda m: replay_edits(m, [{"edit": "ad_layer"}]), UnknownNameError, "add_layer"),
    "a record with too much": (
        lambda m: replay_edits(m, [{"edit": "remove_layer", "layers": {}, "more": 1}]),
        EditError,
        "more",
    ),
    "another model's optimizer": (
        lambda m: add_layer(m, point(), after="layer2", optimizer=torch.optim.SGD(nn.Linear(2, 2).parameters(), 0.1)),
        ConfigurationError,
        "trains no parameter",
    ),
}


@pytest.mark.parametrize("use", WRONG)
def test_wrong_uses_are_named_and_change_nothing(use: str, resnet: PretrainedModel) -> None:
    wrong, error, message = WRONG[use]
    before = fingerprint(resnet)
    with pytest.raises(error) as caught:
        wrong(resnet)
    assert message in str(caught.value)
    assert fingerprint(resnet) == before and resnet.edits is None


@pytest.mark.parametrize(
    ("tokens", "start", "message"),
    [
        (["the"], "pieces", "'the'"),
        (["a", "a"], "pieces", "each once"),
        ([], "pieces", "cannot be added"),
        ([""], "mean", "cannot be added"),
        (["x1"], "meen", "'mean'"),
    ],
)
def test_wrong_words(tokens: list[str], start: str, message: str, text: PretrainedModel) -> None:
    before = fingerprint(text)
    with pytest.raises(ConfigurationError, match=message):
        resize_vocabulary(text, tokens, start=start)
    assert fingerprint(text) == before


def test_what_is_no_module_and_what_nothing_is_known_of() -> None:
    with pytest.raises(ConfigurationError, match="type str"):
        remove_layer("resnet18", "layer2")
    with pytest.raises(ConfigurationError, match="inputs="):
        remove_layer(tied(), "second")


def test_a_second_layer_of_one_name_is_refused_and_others_line_up(resnet: PretrainedModel) -> None:
    model = copy.deepcopy(resnet)
    add_layer(model, point(), after="layer2", name="one")
    before = fingerprint(model)
    with pytest.raises(EditError, match="'one'"):
        add_layer(model, point(), after="layer2", name="one")
    assert fingerprint(model) == before
    add_layer(model, nn.Sequential(nn.ReLU(), point()), after="layer2", name="two")
    add_layer(model, nn.Conv2d(64, 64, 1), before="layer2", name="zero")
    names = [name for name in layer_names(model) if name in ("layer2.zero", "layer2.0", "layer2.one", "layer2.two")]
    assert names == ["layer2.0", "layer2.zero", "layer2.one", "layer2.two"]
    remove_layer(model, "layer2.one")
    assert "layer2.two" in layer_names(model) and "layer2.one" not in layer_names(model)
    for _ in range(4):
        undo_edit(model)
    assert fingerprint(model) == fingerprint(resnet)


def test_a_tie_is_not_broken() -> None:
    model = tied()
    before = fingerprint(model)
    with pytest.raises(EditError, match="'first', 'second' share one parameter"):
        replace_layer(model, "second", nn.Linear(6, 6), inputs=SIX)
    assert fingerprint(model) == before and model.second.weight is model.first.weight
    replace_layer(model, ["first", "second"], nn.Linear(6, 6), inputs=SIX)
    undo_edit(model)
    assert fingerprint(model) == before and model.second.weight is model.first.weight


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_what_is_tied_grows_together_and_old_words_keep_their_scores(family: str) -> None:
    model = FAMILIES[family]()
    inputs = {name: tensor[None] for name, tensor in model.preprocess("the dog").items()}
    with torch.no_grad():
        before = model(inputs)
    rows = before.shape[-1]
    new = ["zyzzyva", "<protein>"]
    pieces = [model.preprocess.words(word) for word in new]
    known = model.preprocess.vocabulary_size
    resize_vocabulary(model, new)
    with torch.no_grad():
        after = model(inputs)
    assert torch.allclose(after[..., :known], before[..., :known], rtol=0, atol=1e-5)
    assert after.shape[-1] == max(rows, known + 2) == model.head.num_outputs
    embedding = model.trunk.get_submodule("wte" if family == "gpt2" else "shared")
    for number, parts in enumerate(pieces):
        expected = embedding.weight[list(parts)].mean(0)
        assert torch.allclose(embedding.weight[known + number], expected)
    assert model.preprocess("zyzzyva")["input_ids"].tolist().count(known) == 1
    assert model.preprocess.decode([known]) == "zyzzyva"


def test_moments_of_old_words_are_kept() -> None:
    model = FAMILIES["gpt2"]()
    optimizer = torch.optim.Adam(model.parameters())
    inputs = {name: tensor[None] for name, tensor in model.preprocess("the dog and").items()}
    model(inputs).square().mean().backward()
    optimizer.step()
    old = optimizer.state[model.trunk.wte.weight]["exp_avg"].clone()
    resize_vocabulary(model, ["zyzzyva"], optimizer=optimizer)
    moments = optimizer.state[model.trunk.wte.weight]["exp_avg"]
    known = model.preprocess.vocabulary_size - 1
    assert torch.equal(moments[:known], old[:known]) and not moments[known:].any()


def test_hooks_go_over_and_come_back(resnet: PretrainedModel) -> None:
    model, seen = copy.deepcopy(resnet), []
    handle = model.trunk.layer1[0].act1.register_forward_hook(lambda *given: seen.append(type(given[0]).__name__))
    swap_activations(model, "gelu")
    assert seen == []  # trying the edit out calls no hook of the user's
    model(torch.zeros(1, 3, 32, 32))
    undo_edit(model)
    model(torch.zeros(1, 3, 32, 32))
    assert seen == ["GELU", "ReLU"]
    handle.remove()
    model(torch.zeros(1, 3, 32, 32))
    assert len(seen) == 2


def test_new_layers_are_of_the_type_and_mode_of_their_neighbours(resnet: PretrainedModel) -> None:
    model = copy.deepcopy(resnet).bfloat16().train()
    add_layer(model, point(), after="layer2")
    swap_norms(model, "group")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert all(part.training for part in model.modules())


@pytest.mark.parametrize("family", ["mobilenet", "vit", "own network"])
def test_shapes_are_looked_at_without_computing(family: str) -> None:
    model = FAMILIES[family]()
    inputs = OWN_INPUTS if family == "own network" else None
    assert Trial.of(model, inputs).before.on_meta


def test_layers_keep_the_names_that_they_had(resnet: PretrainedModel) -> None:
    model = copy.deepcopy(resnet)
    before = layer_names(model)
    add_layer(model, point(), after="layer2", residual=False, name="squeeze")
    assert [name for name in layer_names(model) if name not in before] == ["layer2.squeeze"]
    tuner = Finetuner(model, num_classes=2, freeze_layers=["layer2.0", "conv1"])
    frozen = {name for name, parameter in tuner.model.named_parameters() if not parameter.requires_grad}
    assert frozen and all(".0." in name or "conv1" in name for name in frozen)
    assert not any("squeeze" in name for name in frozen)


def test_another_head_has_no_names_of_the_old_one(resnet: PretrainedModel) -> None:
    model = copy.deepcopy(resnet)
    model.categories = tuple(map(str, range(1000)))
    replace_layer(model, "fc", nn.Linear(512, 4))
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 4) and model.categories == ()
    undo_edit(model)
    assert len(model.categories) == 1000


def test_influence_of_blocks_by_hand() -> None:
    """A block that turns every vector by an angle changes 1 - cos of it (Men et al., 2024, eq. 1)."""

    class Turn(nn.Module):
        def __init__(self, angle: float) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2, bias=False)
            turned = torch.tensor([angle]).deg2rad()
            with torch.no_grad():
                self.linear.weight.copy_(
                    torch.stack([torch.cat([turned.cos(), -turned.sin()]), torch.cat([turned.sin(), turned.cos()])])
                )

        def forward(self, tokens: Tensor) -> Tensor:
            return self.linear(tokens)

    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([Turn(60.0), Turn(0.0), Turn(90.0)])
            self.head = nn.Linear(2, 2)

        def forward(self, tokens: Tensor) -> Tensor:
            for block in self.blocks:
                tokens = block(tokens)
            return self.head(tokens.mean(1))

    tokens = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0))
    model = adopt(Chain())
    found = block_influence(model, tokens)
    assert list(found) == ["blocks.0", "blocks.1", "blocks.2"]
    assert list(found.values()) == pytest.approx([0.5, 0.0, 1.0], abs=1e-6)
    assert list(prune_depth(model, 1, tokens)["layers"]) == ["trunk.module.blocks.1"]


def test_swapped_norms_are_those_of_torch() -> None:
    """A group norm of one group and an affine batch norm's numbers, against the formula in float64."""
    batch = nn.BatchNorm2d(6)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in (batch.weight, batch.bias, batch.running_mean, batch.running_var):
            tensor.copy_(torch.rand(6, generator=generator) + 0.5)
    module = nn.Sequential(nn.Conv2d(3, 6, 1), batch, nn.Flatten(), nn.Linear(6 * 16, 2)).eval()
    maps = torch.randn(2, 3, 4, 4, generator=generator)
    entering = module[0](maps).double()
    swap_norms(module, "group", inputs=maps)
    grouped = entering.reshape(2, 6, 1, 16)  # six channels make six groups of one
    expected = (grouped - grouped.mean((2, 3), keepdim=True)) / (
        grouped.var((2, 3), correction=0, keepdim=True) + batch.eps
    ).sqrt()
    expected = expected.reshape(2, 6, 4, 4) * batch.weight[:, None, None] + batch.bias[:, None, None]
    assert isinstance(module[1], nn.GroupNorm) and module[1].num_groups == 6
    assert torch.allclose(module[1](module[0](maps)).double(), expected, atol=1e-5)


def test_timm_s_norms_keep_their_activation() -> None:
    model = load_pretrained_model("mobilenetv2", weights=None, device="cpu", input_shape=(32, 32, 3))
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = model(images)
    swap_norms(model, "fixed")
    assert torch.allclose(model(images), expected, atol=1e-6)


class Own(nn.Module):
    def __init__(self, width: int, power: float = 2.0) -> None:
        super().__init__()
        self.width, self.power = width, power
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, features: Tensor) -> Tensor:
        return self.scale * features.abs() ** self.power


def test_layers_of_one_s_own() -> None:
    model = tied()
    with pytest.raises(EditError, match="register_layer"):
        add_layer(model, Own(6), after="second", inputs=SIX)
    register_layer(Own)
    try:
        add_layer(model, Own(6, power=3.0), after="second", inputs=SIX)
        fresh = tied()
        replay_edits(fresh, json.loads(json.dumps(list_edits(model))), inputs=SIX)
        assert torch.equal(fresh(SIX), model(SIX)) and fresh.get_submodule("second.added").power == 3.0
        with pytest.raises(ConfigurationError, match="Own"):
            register_layer(Own)
    finally:
        del LAYERS._entries["Own"], LAYERS._canonical["own"]


MADE = [
    nn.Linear(3, 4, bias=False),
    nn.Bilinear(2, 3, 4),
    nn.Identity(),
    nn.Flatten(2),
    nn.Unflatten(1, (2, 3)),
    nn.Embedding(5, 3, padding_idx=1),
    nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2),
    nn.Conv2d(3, 4, (3, 1), padding=(1, 0), dilation=2, bias=False, padding_mode="reflect"),
    nn.Conv3d(1, 2, 3),
    nn.ConvTranspose2d(3, 4, 4, stride=2, padding=1, output_padding=1),
    nn.BatchNorm2d(4, eps=1e-3, momentum=0.2, affine=False),
    nn.LayerNorm((3, 4), eps=1e-6, bias=False),
    nn.GroupNorm(2, 4, affine=False),
    nn.RMSNorm(4),
    nn.InstanceNorm2d(3, affine=True),
    nn.Dropout(0.3),
    nn.LeakyReLU(0.2),
    nn.PReLU(3),
    nn.ELU(0.5),
    nn.GELU(approximate="tanh"),
    nn.Softmax(1),
    nn.AvgPool2d(2, stride=1),
    nn.MaxPool2d(3, 2, 1),
    nn.AdaptiveAvgPool2d((1, None)),
    nn.Upsample(scale_factor=2.0, mode="nearest"),
    nn.PixelShuffle(2),
    nn.ZeroPad2d((1, 2, 0, 1)),
    nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU(), nn.Linear(2, 1))),
]


@pytest.mark.parametrize("layer", MADE, ids=lambda layer: type(layer).__name__)
def test_layers_through_json(layer: nn.Module) -> None:
    again = build_layer(json.loads(json.dumps(describe_layer(layer))))
    assert repr(again) == repr(layer)
    assert {name: tensor.shape for name, tensor in again.state_dict().items()} == {
        name: tensor.shape for name, tensor in layer.state_dict().items()
    }
