"""What goes wrong in a step, found out: which layer, which samples, or too little memory."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, final

import torch
from torch import Tensor, nn

from ..data import Batch
from ..devices import is_out_of_memory
from ..errors import InputMismatchError
from ..models import display_name

Value = TypeVar("Value")


def alone_in_its_batch(error: ValueError) -> InputMismatchError | None:
    """What to say where torch refuses to normalise one sample by itself; None for another error."""
    if "more than 1 value per channel when training" not in str(error):
        return None
    return InputMismatchError(
        f"a batch of one sample cannot be normalised by batch norms ({error}). Take a batch_size that leaves more than "
        "one at the end, or DataLoader(dataset, batch_size, drop_last=True)."
    )


def in_fitting_parts(batch: Batch, compute: Callable[[Batch], Value]) -> list[Value]:
    """`compute` of a batch, or of ever smaller parts of it while memory runs out."""
    size = len(batch)
    while True:
        try:
            return [compute(part) for part in batch.parts(size)]
        except (RuntimeError, MemoryError) as error:
            if size == 1 or not is_out_of_memory(error):
                raise
        size //= 2
        free_memory()


def suspects(batch: Batch) -> str:
    """The samples to look at: those with inputs that are not finite, else the whole batch."""
    inputs = batch.inputs.values() if isinstance(batch.inputs, Mapping) else [batch.inputs]
    finite = torch.ones(len(batch), dtype=torch.bool)
    for tensor in inputs:
        finite &= torch.isfinite(tensor).flatten(1).all(1).cpu()
    if bool(finite.all()):
        return f"{batch.indices.tolist()[:8]}"
    return f"{batch.indices[~finite].tolist()[:8]}, whose inputs hold NaN or infinity"


def non_finite_tensors(model: nn.Module) -> list[str]:
    """Displayed names of parameters and buffers that hold NaN or infinity."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    wrong = [name for name, tensor in tensors if tensor.is_floating_point() and not bool(tensor.isfinite().all())]
    return [display_name(model, name) for name in wrong]


def non_finite_gradients(model: nn.Module) -> list[str]:
    """Displayed names of parameters whose gradient holds NaN or infinity."""
    return [
        display_name(model, name)
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all())
    ]


@torch.no_grad()
def first_non_finite_layer(model: nn.Module, forward: Callable[[], Any]) -> str | None:
    """Displayed name of the first layer whose output is not finite while `forward` runs; None if all are."""
    found: list[str] = []

    def watch(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            if not found and isinstance(output, Tensor) and not bool(torch.isfinite(output).all()):
                found.append(name)

        return look

    hooks = [module.register_forward_hook(watch(name)) for name, module in model.named_modules() if name]
    try:
        forward()
    finally:
        for hook in hooks:
            hook.remove()
    return display_name(model, found[0]) if found else None


def loss_message(loss: float, place: str, samples: str, layer: str | None) -> str:
    """What to say of a loss that is not finite. place: step and epoch. layer: the first with such an output."""
    blamed = f"the first layer to give NaN or infinity is {layer}" if layer else "every layer's output is finite"
    return (
        f"the loss became {loss} at {place}, on samples {samples}; {blamed}. The weights are those from before this "
        "step. Check these samples for NaN or extreme values, lower learning_rate, or set clip_norm=1.0."
    )


def gradient_message(model: nn.Module, place: str, window: Sequence[Batch]) -> str:
    """What to say of a gradient that is not finite."""
    samples = [index for batch in window for index in batch.indices.tolist()][:8]
    return (
        f"the gradient became NaN or infinite at {place} in {', '.join(non_finite_gradients(model)[:3])}, on samples "
        f"{samples}. The weights are those from before this step. Lower learning_rate, set clip_norm=1.0, or use "
        "precision='fp32'."
    )


def free_memory() -> None:
    """Give back what a failed step left, so that the next attempt has it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@final
class Buffers:
    """A copy of what a forward pass in training mode writes (running statistics), to take a failed step back.

    every: of all buffers, as some forwards write in any mode.
    """

    def __init__(self, model: nn.Module, *, every: bool = False) -> None:
        written = [module for module in model.modules() if every or module.training]
        self._own = [buffer for module in written for buffer in module.buffers(recurse=False)]
        self._copy = [buffer.clone() for buffer in self._own]

    def keep(self) -> None:
        """Remember them as they are."""
        if self._own:
            torch._foreach_copy_(self._copy, self._own)

    def put_back(self) -> None:
        """Make them what they were at the last keep."""
        if self._own:
            torch._foreach_copy_(self._own, self._copy)
