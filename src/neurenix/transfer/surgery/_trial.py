"""Trying an edit out: the model's structure without its memory, and what shapes flow through it."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import numpy
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ...data import DataLoader, ListDataset, prepare
from ...errors import ConfigurationError, EditError
from ...models import PretrainedModel, display_name
from ...nn import evaluating
from ...nn.wrapping import tensor_of

HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)


@final
@dataclass(frozen=True)
class Flow:
    """What one forward pass did. given: name -> shape of the first tensor that a layer was given.

    gave: name -> shape of the first tensor that it gave; outputs: name -> length of its tuple, 0 for a tensor alone.
    answer: shapes of what the model gave. on_meta: nothing was computed.
    """

    given: Mapping[str, tuple[int, ...]]
    gave: Mapping[str, tuple[int, ...]]
    outputs: Mapping[str, int]
    answer: Any
    on_meta: bool


def structure_of(model: nn.Module) -> nn.Module:
    """The same modules once more, around the same tensors, without hooks."""
    shared: list[Any] = [*model.parameters(), *model.buffers(), getattr(model, "preprocess", None)]
    twin = copy.deepcopy(model, {id(value): value for value in shared})
    for module in twin.modules():
        for hooks in HOOKS:
            getattr(module, hooks, {}).clear()
    return twin


def example_inputs(model: nn.Module) -> Any:
    """A batch that the model reads, by its preprocessing. Raises ConfigurationError where nothing tells what it is."""
    preprocess = getattr(model, "preprocess", None)
    raw = _raw_sample(preprocess)
    if raw is not None:
        return DataLoader(prepare(ListDataset([raw, raw]), preprocess, False), batch_size=2).first(0).inputs
    if isinstance(model, PretrainedModel) and (model.domain == "nlp" or getattr(preprocess, "reads", "") == "music"):
        ids = torch.zeros(2, 8, dtype=torch.int64)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    raise ConfigurationError(
        "an edit is tried out before anything changes, and nothing tells what this model reads; give a batch of its "
        "inputs: inputs=…."
    )


def flow(model: nn.Module, inputs: Any, *, on_meta: bool | None = None) -> Flow:
    """Shapes through a structure (see structure_of) in evaluation mode.

    on_meta: without computing anything; None for where that is possible, which layers that look at values are not.
    """
    if on_meta is None:
        try:
            return flow(model, inputs, on_meta=True)
        except Exception:  # whatever it is that a network cannot do without values; with them, errors are errors
            return flow(model, inputs, on_meta=False)
    watch = _Watch()
    with watch.on(model), torch.no_grad(), evaluating(model):
        try:
            answer = _run(model, inputs, on_meta)
        except Exception as error:
            raise watch.stopped(error) from error
    return Flow(watch.given, watch.gave, watch.outputs, tree_map(_shape, answer), on_meta)


@final
class _Watch:
    """Hooks that note what layers are given and give, and which one was entered last."""

    def __init__(self) -> None:
        self.given: dict[str, tuple[int, ...]] = {}
        self.gave: dict[str, tuple[int, ...]] = {}
        self.outputs: dict[str, int] = {}
        self._entered: list[str] = []

    @contextlib.contextmanager
    def on(self, model: nn.Module) -> Iterator[None]:
        handles = []
        for name, module in model.named_modules():
            handles += [
                module.register_forward_pre_hook(partial(self._before, name), with_kwargs=True),
                module.register_forward_hook(partial(self._after, name)),
            ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def stopped(self, error: Exception) -> _Stopped:
        layer = self._entered[-1] if self._entered else ""
        return _Stopped(layer, self.given.get(layer), error)

    def _before(self, name: str, module: nn.Module, arguments: Any, named: Any) -> None:
        self._entered.append(name)
        first = next((value for value in (*arguments, *named.values()) if isinstance(value, Tensor)), None)
        if first is not None:
            self.given[name] = tuple(first.shape)

    def _after(self, name: str, module: nn.Module, arguments: Any, output: Any) -> None:
        self._entered.pop()
        self.outputs[name] = len(output) if isinstance(output, tuple) else 0
        if isinstance(tensor_of(output), Tensor):
            self.gave[name] = tuple(tensor_of(output).shape)


def check_flow(model: nn.Module, inputs: Any, before: Flow, what: str) -> Flow:
    """The flow of an edited structure. Raises EditError that names the layer at which it stops.

    before: of the structure that was not edited; what: the edit, in words.
    """
    try:
        return flow(model, inputs, on_meta=before.on_meta)
    except _Stopped as stop:
        layer = dict(model.named_modules())[stop.layer]
        got = "" if stop.given is None else f" is given {stop.given} and"
        name = display_name(model, stop.layer) or type(model).__name__
        reason = str(stop.error).splitlines()[0]
        raise EditError(
            f"after {what}, layer {name!r} ({_named(layer)}){got} stops with: {reason} The model is as it was."
        ) from stop.error


def _run(model: nn.Module, inputs: Any, on_meta: bool) -> Any:
    like = next((tensor for tensor in model.parameters() if tensor.is_floating_point()), torch.empty(0))
    device = torch.device("meta") if on_meta else like.device
    given = tree_map(lambda value: _to(value, device, like.dtype), inputs)
    if not on_meta:
        return model(given)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    weightless = {name: torch.empty_like(tensor, device=device) for name, tensor in tensors.items()}
    return torch.func.functional_call(model, weightless, (given,))


def _to(value: Any, device: torch.device, dtype: torch.dtype) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value.to(device, dtype) if value.is_floating_point() else value.to(device)


def _shape(value: Any) -> Any:
    return tuple(value.shape) if isinstance(value, Tensor) else value


def _raw_sample(preprocess: Any) -> Any:
    if hasattr(preprocess, "example"):
        return preprocess.example()
    match getattr(preprocess, "reads", None):
        case "image":
            return numpy.zeros((64, 64, getattr(preprocess.spec, "channels", 3)), dtype=numpy.uint8)
        case "text":
            return "a text"
        case "sound":
            return numpy.zeros(int(preprocess.spec.sample_rate), dtype=numpy.float32)
    return None


def _named(layer: nn.Module) -> str:
    shown = repr(layer).splitlines()[0]
    return shown if len(shown) < 100 else type(layer).__name__


@final
class _Stopped(Exception):
    """A forward pass stopped at a layer."""

    def __init__(self, layer: str, given: tuple[int, ...] | None, error: Exception) -> None:
        self.layer, self.given, self.error = layer, given, error
        super().__init__(layer)
