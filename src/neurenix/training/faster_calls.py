"""Calls of layers that are answered in less time than torch takes for them on the CPU, while a training step runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, final

import torch
from torch import Tensor, nn
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
        return self._calls.get(func, func)(*args, **(kwargs or {}))
