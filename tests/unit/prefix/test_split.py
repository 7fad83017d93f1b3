"""The two parts of a model train it bit for bit as the whole does: torch.equal to the uncut model, same seed."""

from __future__ import annotations

import copy
import gc
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from tests.unit.prefix.models import CASES, TEXTS, Case, Inputs
from torch import Tensor, nn

from neurenix.models import PretrainedModel
from neurenix.training.prefix import Split, split

TRACED_WITH = 4


class Pass(NamedTuple):
    """What a training pass gives and leaves behind."""

    answer: Tensor
    gradients: dict[str, Tensor]
    buffers: dict[str, Tensor]


@dataclass
class Halves:
    """A model, its two parts, and a copy of it that was never cut. start: the copy's state before any pass."""

    case: Case
    model: PretrainedModel
    split: Split
    whole: PretrainedModel
    start: dict[str, Tensor]

    def by_parts(self, inputs: Inputs, seed: int) -> Pass:
        """A pass of the suffix over what the prefix gives."""
        self.model.load_state_dict(self.start)
        with torch.no_grad():
            boundary = self.split.prefix(inputs)
        return trained(self.split.suffix, boundary, self.model, seed)

    def at_once(self, inputs: Inputs, seed: int) -> Pass:
        """A pass of the uncut copy."""
        self.whole.load_state_dict(self.start)
        return trained(self.whole, inputs, self.whole, seed)


def trained(called: nn.Module, inputs: object, owner: PretrainedModel, seed: int) -> Pass:
    """Forward and backward; gradients and buffers by the names that `owner` has for them."""
    owner.zero_grad(set_to_none=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        answer = called(inputs)
        answer.square().sum().backward()
    gradients = {n: p.grad.clone() for n, p in owner.named_parameters() if p.grad is not None}
    return Pass(answer.detach(), gradients, {n: b.clone() for n, b in owner.named_buffers()})


def assert_same(parts: Pass, whole: Pass) -> None:
    assert torch.equal(parts.answer, whole.answer)
    for mine, other in ((parts.gradients, whole.gradients), (parts.buffers, whole.buffers)):
        assert list(mine) == list(other)
        assert [name for name in mine if not torch.equal(mine[name], other[name])] == []


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def halves(request: pytest.FixtureRequest) -> Iterator[Halves]:
    case: Case = request.param
    model = case.model()
    whole = copy.deepcopy(model)
    start = copy.deepcopy(model.state_dict())
    yield Halves(case, model, split(model, case.inputs(TRACED_WITH, seed=0)), whole, start)
    gc.collect()


@pytest.mark.parametrize("count", [2, 3, 7])
def test_parts_train_as_the_whole(halves: Halves, count: int) -> None:
    inputs = halves.case.inputs(count, seed=count)
    parts, whole = halves.by_parts(inputs, seed=1), halves.at_once(inputs, seed=1)
    assert_same(parts, whole)
    assert parts.answer.shape == (count, 3) and len(parts.answer.unique()) > 3
    needed = {name for name, parameter in halves.model.named_parameters() if parameter.requires_grad}
    assert set(parts.gradients) == needed and any(gradient.any() for gradient in parts.gradients.values())


@pytest.mark.parametrize("longest", [2, 5, 24])
@pytest.mark.parametrize("halves", TEXTS.values(), ids=TEXTS, indirect=True)
def test_texts_of_another_length_train_as_the_whole(halves: Halves, longest: int) -> None:
    inputs = halves.case.inputs(3, seed=longest, longest=longest)
    parts = halves.by_parts(inputs, seed=1)
    assert_same(parts, halves.at_once(inputs, seed=1))
    assert len(parts.gradients) > 2


def test_what_is_stored_is_the_cheapest(halves: Halves) -> None:
    with torch.no_grad():
        boundary = halves.split.prefix(halves.case.inputs(3, seed=3, longest=9))
    shapes = [
        (tensor.dtype, tuple("t" if name in halves.split.tokens and place == 0 else size for place, size in shape))
        for name, tensor in boundary.items()
        for shape in [list(enumerate(tensor.shape[1:]))]
    ]
    assert sorted(shapes, key=str) == sorted(halves.case.boundary, key=str)
    assert all(len(tensor) == 3 for tensor in boundary.values())
    assert all(boundary[name].shape[1] == 9 for name in halves.split.tokens)


def test_randomness_is_drawn_above_the_boundary(halves: Halves) -> None:
    """Another seed gives another answer exactly where the trained part has dropouts; so the equality says something."""
    inputs = halves.case.inputs(7, seed=5)
    one, other = halves.by_parts(inputs, seed=1), halves.by_parts(inputs, seed=2)
    assert torch.equal(one.answer, other.answer) != halves.case.random
    with torch.no_grad():
        state = torch.random.get_rng_state()
        halves.split.prefix(inputs)
        assert torch.equal(torch.random.get_rng_state(), state)


def test_statistics_change_above_the_boundary_only(halves: Halves) -> None:
    before = {name: buffer.clone() for name, buffer in halves.whole.named_buffers()}
    before |= {name: tensor for name, tensor in halves.start.items() if name in before}
    after = halves.by_parts(halves.case.inputs(7, seed=6), seed=1).buffers
    moved = {name.rpartition(".")[0] for name in before if not torch.equal(before[name], after[name])}
    modules = dict(halves.model.named_modules())
    norms = {n for n, m in modules.items() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    assert moved == {name for name in norms if modules[name].training}
    assert bool(moved) == halves.case.statistics


def test_the_suffix_holds_the_models_own_tensors(halves: Halves) -> None:
    """Training the suffix is training the model."""
    own = {id(tensor) for tensor in [*halves.model.parameters(), *halves.model.buffers()]}
    above = {id(parameter) for parameter in halves.split.suffix.parameters()}
    needed = {id(parameter) for parameter in halves.model.parameters() if parameter.requires_grad}
    assert needed <= above <= own
    below = list(halves.split.prefix.parameters())
    assert below and {id(parameter) for parameter in below} <= own
    assert not any(parameter.requires_grad for parameter in below if id(parameter) in needed and len(needed) > 2)


def test_rows_of_a_sample_do_not_depend_on_its_place(halves: Halves) -> None:
    """Rows in another order give the whole's answer for the samples in that order."""
    inputs = halves.case.inputs(5, seed=8)
    order = torch.tensor([3, 0, 4, 2, 1])
    shuffled = inputs[order] if isinstance(inputs, Tensor) else {name: rows[order] for name, rows in inputs.items()}
    with torch.no_grad():
        boundary = {name: rows[order] for name, rows in halves.split.prefix(inputs).items()}
    halves.model.load_state_dict(halves.start)
    parts = trained(halves.split.suffix, boundary, halves.model, seed=1)
    torch.testing.assert_close(parts.answer, halves.at_once(shuffled, seed=1).answer)
