"""Before parts are trained in a model's place, both make one pass, and have to leave the same behind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from ...backends import Inputs
from ...data._randomness import generator_states
from ...devices import autocast, is_out_of_memory, rounding
from ..faults import Buffers
from .graph import NotSplittable

_SHARE = 1e-2  # of the whole gradient's size, that a parameter's own counts as at least: some are rounding alone


@final
@dataclass(frozen=True)
class Pass:
    """answer: of the model. gradients: of answer² by its trained parameters. buffers: by name, after the pass."""

    answer: Tensor
    gradients: Mapping[str, Tensor | None]
    buffers: Mapping[str, Tensor]


def check_same(
    model: nn.Module,
    inputs: Inputs,
    parts: nn.Module,
    boundary: Inputs,
    *,
    precision: str,
    training: bool,
    targets: Any = None,
    tolerance: float | None = None,
) -> None:
    """Raise NotSplittable unless parts(boundary) answers and, in training, learns as model(inputs) does.

    targets: of a TaskHead, whose losses are compared in place of answers, which may be of any kind. tolerance: relative
    to the size of the whole; by default what the same operations in the same order may differ by.

    A trace knows of tensor operations alone: what stops, turns or hooks gradients, or writes what it does not own, is
    found out here. Running statistics and the generators are put back.
    """
    whole = _passed(model, model, inputs, targets, precision, training)
    try:
        other = _passed(model, parts, boundary, targets, precision, training)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise NotSplittable(f"its parts cannot be trained ({' '.join(str(error).split())[:200]})") from error
    tolerance = tolerance or rounding(precision, next(model.parameters()).device)
    if not close(other.answer, whole.answer, tolerance):
        raise NotSplittable("its two parts do not give what the whole gives")
    _check_gradients(other.gradients, whole.gradients, tolerance)
    wrong = [name for name, buffer in whole.buffers.items() if not close(other.buffers[name], buffer, tolerance)]
    if wrong:
        raise NotSplittable(f"its two parts do not write what the whole writes into {wrong[0]}")


@contextlib.contextmanager
def put_back(model: nn.Module) -> Any:
    """As restored, for a forward pass that shall be cut in two.

    Raises NotSplittable for one that puts a new tensor in the place of a buffer, or draws numbers that torch does not
    know of.
    """
    drawn = generator_states()[1:]  # torch's is forked
    with restored(model) as replaced:
        yield
        drew = generator_states()[1:] != drawn
    if drew:
        raise NotSplittable("its forward draws numbers from Python's or NumPy's generator")
    if replaced:
        raise NotSplittable(f"its forward puts a new tensor in the place of {replaced[0]}")


@contextlib.contextmanager
def restored(model: nn.Module) -> Iterator[list[str]]:
    """Buffers and torch's generators are as before, after the block; inside, the randomness is always the same.

    Gives a list that afterwards names the buffers in whose place the block put new tensors.
    """
    buffers, owned, replaced = Buffers(model, every=True), dict(model.named_buffers()), list[str]()
    buffers.keep()
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            yield replaced
    finally:
        replaced += [name for name, buffer in model.named_buffers() if buffer is not owned.get(name)]
        for name in replaced:
            owner, _, attribute = name.rpartition(".")
            model.get_submodule(owner)._buffers[attribute] = owned.get(name)
        buffers.put_back()


def close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    """Whether two tensors are equal but for rounding: relative to the size of the whole; texts by common tokens."""
    if one.shape != other.shape:
        other = other[tuple(slice(size) for size in one.shape)]
        one = one[tuple(slice(size) for size in other.shape)]
    gap, size = (one.float() - other.float()).norm(), other.float().norm()
    return bool(gap <= tolerance * size) or bool(gap == 0)


def _passed(model: nn.Module, called: nn.Module, inputs: Inputs, targets: Any, precision: str, training: bool) -> Pass:
    trained = {name: parameter for name, parameter in model.named_parameters() if training and parameter.requires_grad}
    device = next(model.parameters()).device
    with put_back(model):
        with torch.set_grad_enabled(training), autocast(device, precision):
            answer = called(inputs) if targets is None else torch.stack(list(called(inputs, targets).values()))
            if isinstance(answer, Mapping):
                answer = torch.cat([part.float().flatten() for part in answer.values()])
        gradients: tuple[Tensor | None, ...] = ()
        if trained:
            goal = answer.float().square().sum()
            gradients = torch.autograd.grad(goal, list(trained.values()), allow_unused=True)
        after = {name: buffer.clone() for name, buffer in model.named_buffers()}
    return Pass(answer.detach(), dict(zip(trained, gradients, strict=False)), after)


def _check_gradients(parts: Mapping[str, Tensor | None], whole: Mapping[str, Tensor | None], tolerance: float) -> None:
    sizes = [gradient.float().norm() for gradient in whole.values() if gradient is not None]
    least = _SHARE * float(torch.stack(sizes).norm()) if sizes else 0.0
    for name, gradient in whole.items():
        expected, found = _or_zeros(gradient, parts[name]), _or_zeros(parts[name], gradient)
        if expected is None or found is None:
            continue
        gap, size = float((found - expected).norm()), float(expected.norm())
        if not gap <= tolerance * max(size, least):
            raise NotSplittable(
                f"its two parts do not give {name} the gradient that the whole gives it: something in its forward "
                "stops, turns or hooks gradients"
            )


def _or_zeros(gradient: Tensor | None, other: Tensor | None) -> Tensor | None:
    if gradient is None:
        return None if other is None else torch.zeros_like(other, dtype=torch.float32)
    return gradient.float()
