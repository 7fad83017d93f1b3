"""Calls of layers that are answered in less time than torch takes for them on the CPU, while a training step runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, final

import torch
from torch import Tensor, nn
from torch._C._autograd import _top_saved_tensors_default_hooks
from torch.overrides import TorchFunctionMode

from .depthwise import depthwise_calls
from .fast_dropout import dropout_calls


def faster_calls(model: nn.Module, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """A context in which a model's step takes less time; nothing where there is nothing to gain."""
    calls = {**dropout_calls(model), **depthwise_calls(model)} if device.type == "cpu" else {}
    return _FasterCalls(calls) if calls else contextlib.nullcontext()


@final
class _FasterCalls(TorchFunctionMode):
    def __init__(self, calls: Mapping[Any, Callable[..., Tensor]]) -> None:
        super().__init__()
        self._calls = calls

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        call = self._calls.get(func)
        return (func if call is None or not _runs_once() else call)(*args, **(kwargs or {}))


def _runs_once() -> bool:
    """Not in layers that are run again on the way back, which this context does not see: they have to do the same then.

    Gradient checkpointing runs such layers without gradients, or with hooks on what would be kept.
    """
    return torch.is_grad_enabled() and _top_saved_tensors_default_hooks(True) is None
