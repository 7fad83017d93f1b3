"""A model in two: what gives the same answer for a sample in every epoch, and what is trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, fx, nn

from ...models import PretrainedModel
from ...nn import Pool
from .cut import Step, minimum_cut
from .graph import (
    Inputs,
    NotSplittable,
    Traced,
    bytes_of,
    hint,
    is_symbolic,
    nodes_between,
    price_of_repeating,
    symbol_of,
    trace,
)
from .reading import MASK, Reading, Rereading, beside, reads_more, tokens_of
from .store import Boundary

FEATURES = "features"
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_OWN_HOOKS = "the model itself has hooks, which would not be called"
_STORED = 4.0  # price of a stored byte, in bytes written: it takes memory, and is written, read and gathered


@final
@dataclass(frozen=True)
class Split:
    """prefix: a batch's inputs -> its boundary, tensors (n, …) by name. suffix: boundary -> what the model gives.

    The suffix holds the model's own parameters and buffers, so training it trains the model. tokens: names of the
    boundary's tensors (n, tokens, …), which are as long as the batch's longest text. beside: what belongs to the
    boundary without passing the prefix; the suffix then is asked for losses too, as a model with a TaskHead is.
    """

    prefix: nn.Module
    suffix: nn.Module
    tokens: frozenset[str]
    beside: Callable[[Inputs], Boundary] | None = None


def split(model: PretrainedModel, inputs: Inputs, moving: frozenset[int] = frozenset()) -> Split:
    """Cut the model, in the mode that its modules are in now, where all below gives one answer for one sample.

    inputs: a batch of at least two samples to trace with. moving: ids of buffers that change between passes, although
    nothing writes them in this mode. Raises NotSplittable, saying why.
    """
    _refuse_hooks(model)
    fixed = not any(part.requires_grad for part in model.trunk.parameters()) and not _has_states(model.trunk)
    fixed = fixed and not any(id(buffer) in moving for buffer in model.trunk.buffers())
    if reads_more(model):
        if not fixed:
            raise NotSplittable("its head reads maps or tokens, and of the layers that give them some are trained")
        return Split(Reading(model), Rereading(model), tokens_of(model, inputs), partial(beside, model))
    if fixed:
        return Split(Embedding(model), _suffix(model, _Stored(FEATURES), Pool("none")), frozenset())
    if isinstance(inputs, Tensor) and len(inputs) < 2 or not isinstance(inputs, Tensor) and _smallest(inputs) < 2:
        raise NotSplittable("one sample in a batch does not show which sizes are the batch's")
    reads_mask = _reads_mask(model.trunk, inputs)
    traced = trace(model.trunk, inputs, moving)
    stored = _stored_nodes(traced, reads_mask)
    prefix, suffix = _first_part(traced, stored), _second_part(traced, stored)
    tokens = frozenset(node.name for node in stored if _is_text(node, traced))
    masks = {node.name: key for node in stored if (key := traced.inputs.get(node.name)) == MASK}
    names = {node.name: masks.get(node.name, node.name) for node in stored}
    return Split(
        Prefix(prefix, traced.inputs, list(names.values())),
        _suffix(model, _Suffix(suffix, list(names.values())), model.pool),
        frozenset(names[name] for name in tokens),
    )


@final
class Embedding(nn.Module):
    """Inputs -> what enters a model's head, under the name FEATURES."""

    def __init__(self, model: PretrainedModel) -> None:
        super().__init__()
        self.model = model
        self.training = model.training

    def forward(self, inputs: Inputs) -> Boundary:
        """Pooled features (n, feature_size)."""
        return {FEATURES: self.model.embed(inputs)}


@final
class _Stored(nn.Module):
    """Boundary -> one tensor of it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def forward(self, boundary: Boundary) -> Tensor:
        return boundary[self._name]


@final
class Prefix(nn.Module):
    """Runs the graph below the cut, its body, on a batch's inputs."""

    def __init__(self, graph: fx.GraphModule, inputs: Mapping[str, str], names: Sequence[str]) -> None:
        super().__init__()
        self.body = graph
        self._keys = list(inputs.values())
        self._names = names

    def forward(self, inputs: Inputs) -> Boundary:
        """The tensors at the cut, by name."""
        given = [inputs] if isinstance(inputs, Tensor) else [inputs[key] for key in self._keys]
        return dict(zip(self._names, self.body(*given), strict=True))


@final
class _Suffix(nn.Module):
    """Runs the graph above the cut; in a PretrainedModel it is the trunk."""

    def __init__(self, graph: fx.GraphModule, names: Sequence[str]) -> None:
        super().__init__()
        self.body = graph
        self._names = names

    def forward(self, boundary: Boundary) -> Tensor:
        answer: Tensor = self.body(*(boundary[name] for name in self._names))
        return answer


def _suffix(model: PretrainedModel, trunk: nn.Module, pool: Pool) -> PretrainedModel:
    """The model with another trunk, the same pool and head; only the new modules' modes are set."""
    suffix = PretrainedModel(
        trunk=trunk, pool=pool, head=model.head, feature_size=model.feature_size, stages=(), head_name=model.head_name
    )
    suffix.training = trunk.training = model.training
    return suffix


def _reads_mask(trunk: Any, inputs: Inputs) -> bool:
    """Whether pooling needs the inputs' mask, because the features have as many tokens.

    Raises NotSplittable for features with a mask of their own, which a graph of the forward pass does not make.
    """
    if hasattr(trunk, "feature_mask"):
        if trunk.feature_mask(inputs) is not None:
            raise NotSplittable("its features are pooled by a mask that is not that of its inputs")
        return False
    return isinstance(inputs, Mapping) and MASK in inputs


def _stored_nodes(traced: Traced, reads_mask: bool) -> list[fx.Node]:
    """The nodes at the minimum cut, in the order of the graph."""
    bound, sampled = traced.bound, _of_samples(traced)
    free = [node for node in traced.graph.nodes if node in sampled]
    wanted = {traced.output.name} if traced.output.name not in bound else set()
    wanted |= {place for place, key in traced.inputs.items() if reads_mask and key == MASK}
    steps = [
        Step(
            name=node.name,
            needs=tuple(need.name for need in node.all_input_nodes if need in sampled),
            stored=_bytes_to_store(node, traced),
            repeated=math.inf if node.op == "placeholder" else price_of_repeating(node) / hint(_batch_of(traced)),
            wanted=node.name in wanted or any(user.name in bound for user in node.users),
        )
        for node in free
    ]
    chosen = minimum_cut(steps)
    if not chosen:
        raise NotSplittable("nothing between its inputs and what is trained can be stored sample by sample")
    if all(name in traced.inputs for name in chosen):
        raise NotSplittable("its first layers are trained, or random, so that nothing stays the same between epochs")
    return [node for node in free if node.name in chosen]


def _of_samples(traced: Traced) -> set[fx.Node]:
    """The free nodes whose values come from the samples; others (weights, sizes, positions) are there in any pass.

    A number that is made of sizes alone, such as each sample's place in its batch, is no property of the sample.
    """
    found: set[fx.Node] = set()
    for node in traced.graph.nodes:
        if node.op == "output" or node.name in traced.bound or is_symbolic(node.meta.get("val")):
            continue
        if node.name in traced.inputs or found & set(node.all_input_nodes):
            found.add(node)
    return found


def _bytes_to_store(node: fx.Node, traced: Traced) -> float:
    value = node.meta.get("val")
    if not isinstance(value, Tensor) or value.ndim == 0 or not is_symbolic(value.shape[0]):
        return math.inf
    if symbol_of(value.shape[0]) not in traced.batch:
        return math.inf
    if any(is_symbolic(size) for size in value.shape[1:]) and not _is_text(node, traced):
        return math.inf
    return _STORED * bytes_of(value) / hint(value.shape[0])


def _is_text(node: fx.Node, traced: Traced) -> bool:
    """Whether a node holds one token after the other, (n, tokens, fixed sizes…)."""
    sizes = node.meta["val"].shape
    symbolic = [place for place, size in enumerate(sizes) if is_symbolic(size)]
    return symbolic == [0, 1] and symbol_of(sizes[1]) in traced.tokens


def _batch_of(traced: Traced) -> Any:
    place = next(node for node in traced.graph.nodes if node.name in traced.inputs)
    return place.meta["val"].shape[0]


def _first_part(traced: Traced, stored: Sequence[fx.Node]) -> fx.GraphModule:
    needed = nodes_between(stored, ())
    graph, copied = fx.Graph(), {}
    for place in traced.inputs:  # all inputs, so that the call is always the same
        copied[_named(traced, place)] = graph.placeholder(place)
    for node in traced.graph.nodes:
        if node in needed and node not in copied:
            copied[node] = _copy(graph, node, copied, traced)
    graph.output(tuple(copied[node] for node in stored))
    return _module(graph, traced)


def _second_part(traced: Traced, stored: Sequence[fx.Node]) -> fx.GraphModule:
    sizes = _sizes(stored, traced)
    effects = [node for node in traced.graph.nodes if node.name in traced.bound and not node.users]
    stop = {*stored, *(node for node in traced.graph.nodes if symbol_of(node.meta.get("val")) in sizes)}
    needed = nodes_between([traced.output, *(node for node in effects if node.op == "call_function")], stop)
    graph, copied = fx.Graph(), {}
    for node in stored:
        copied[node] = graph.placeholder(node.name)
    for node in traced.graph.nodes:
        if symbol_of(node.meta.get("val")) in sizes and any(user in needed for user in node.users):
            holder, dimension = sizes[symbol_of(node.meta.get("val"))]
            copied[node] = graph.call_function(torch.ops.aten.sym_size.int, (copied[holder], dimension))
        elif node in needed and node not in copied:
            if node.name in traced.inputs:
                raise NotSplittable(f"what is trained reads the input {traced.inputs[node.name] or node.name!r} itself")
            copied[node] = _copy(graph, node, copied, traced)
    graph.output(copied[traced.output])
    return _module(graph, traced)


def _sizes(stored: Iterable[fx.Node], traced: Traced) -> dict[Any, tuple[fx.Node, int]]:
    """Symbol -> a stored node and its dimension of that size."""
    found: dict[Any, tuple[fx.Node, int]] = {}
    for node in stored:
        found |= {symbol: (node, 0) for symbol in traced.batch}
        if _is_text(node, traced):
            found |= {symbol: (node, 1) for symbol in traced.tokens}
    return found


def _copy(graph: fx.Graph, node: fx.Node, copied: Mapping[fx.Node, fx.Node], traced: Traced) -> fx.Node:
    if node.name in traced.tensors:
        return graph.get_attr(node.name)
    return graph.node_copy(node, lambda other: copied[other])


def _module(graph: fx.Graph, traced: Traced) -> fx.GraphModule:
    graph.eliminate_dead_code(lambda node: node.is_impure() or _writes(node))
    used = {str(node.target) for node in graph.find_nodes(op="get_attr")}
    module = fx.GraphModule({name: traced.tensors[name] for name in used}, graph)
    module.training = True  # the mode of each operation is in the graph
    return module


def _writes(node: fx.Node) -> bool:
    operation = node.target
    if isinstance(operation, torch._ops.OpOverload):
        return bool(operation._schema.is_mutable) or operation is torch.ops.aten.batch_norm.default
    return False


def _named(traced: Traced, name: str) -> fx.Node:
    return next(node for node in traced.graph.nodes if node.name == name)


def _has_states(module: nn.Module) -> bool:
    """Whether a part is in training mode and could be random or keep statistics of batches."""
    kinds = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    return any(isinstance(part, kinds) and part.training for part in module.modules())


def _smallest(inputs: Mapping[str, Tensor]) -> int:
    return min(len(tensor) for tensor in inputs.values())


def hooks_of(model: PretrainedModel) -> list[tuple[str, int]]:
    """(layer, number of the hook), of hooks that would not be called for each pass: the head's are."""
    return [
        (name, number)
        for name, module in model.named_modules()
        if name.split(".")[0] != "head"
        for kind in _HOOKS
        for number in getattr(module, kind)
    ]


def constants_of(model: PretrainedModel) -> tuple[Any, ...]:
    """What a trace takes for constant: which tensors there are, and hooks and plain settings of all layers."""
    tensors = [id(tensor) for tensor in (*model.parameters(), *model.buffers())]
    settings = [
        (name, key, value)
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if key != "training" and isinstance(value, (int, float, bool, str))
    ]
    return tensors, settings, hooks_of(model)


def _refuse_hooks(model: PretrainedModel) -> None:
    if hooks := hooks_of(model):
        layer = hooks[0][0].removeprefix("trunk.")
        raise NotSplittable(f"its layer {layer!r} has hooks, which would not be called" if layer else _OWN_HOOKS)
    if any(getattr(nn.modules.module, f"_global{kind}") for kind in _HOOKS):
        raise NotSplittable("hooks are set for all modules, and would not be called")
