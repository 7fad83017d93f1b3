"""A trunk as a graph of tensor operations in which it is plain what depends on what is trained."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload

from ...errors import NeurenixError

Inputs = Tensor | Mapping[str, Tensor]
_ATEN = torch.ops.aten
_FLOPS_PER_BYTE = 100.0  # floating point operations that are worth one byte written
_CHECKS = ("_assert", "sym_constrain", "_check")


class NotSplittable(NeurenixError):
    """A model cannot be cut; the message says why. Caught where training then goes on without a store."""


class NotWorthIt(NotSplittable):
    """A model might be cut, and nobody would gain by it; nothing to tell anyone."""


@final
@dataclass(frozen=True)
class Traced:
    """A trunk traced by torch.export, in the mode (training or not) that each of its modules had.

    graph: one operation after the other, in-place ones on activations replaced by their pure twins. tensors:
    placeholder -> the live parameter, buffer or constant of the trunk. inputs: placeholder -> key of the input
    mapping, "" for a plain tensor. bound: nodes that depend on what is trained, on randomness, on other samples of
    the batch or on state that changes; they belong to every pass.
    """

    graph: fx.Graph
    tensors: Mapping[str, Tensor]
    inputs: Mapping[str, str]
    bound: frozenset[str]
    batch: frozenset[Any]  # the symbols of the batch's size: tracing gives each input one of its own
    tokens: frozenset[Any]  # those of the number of tokens, none for inputs of one size

    @property
    def output(self) -> fx.Node:
        """The node that the trunk returns."""
        return next(node for node in reversed(self.graph.nodes) if node.op == "output").all_input_nodes[0]


def trace(trunk: nn.Module, inputs: Inputs, moving: frozenset[int] = frozenset()) -> Traced:
    """The trunk's operations for inputs like these, of any batch size and, in mappings, any number of tokens.

    moving: see split.
    Raises NotSplittable for a forward that torch.export cannot read, or that writes into what it does not own.
    """
    example = inputs if isinstance(inputs, Tensor) else dict(inputs)
    try:
        with torch.no_grad():
            program = torch.export.export(trunk, (example,), dynamic_shapes=(_dynamic(example),), strict=False)
    except Exception as error:  # whatever a forward does that cannot be traced
        reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
        raise NotSplittable(f"torch.export cannot read {type(trunk).__name__}.forward ({reason})") from error
    signature, graph = program.graph_signature, program.graph_module.graph
    live = {**dict(trunk.named_parameters(remove_duplicate=False)), **dict(trunk.named_buffers(remove_duplicate=False))}
    named = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    tensors = {place: live[name] if name in live else program.state_dict[name] for place, name in named.items()}
    tensors |= {place: program.constants[name] for place, name in signature.inputs_to_lifted_tensor_constants.items()}
    if len(graph.find_nodes(op="output")[0].all_input_nodes) != 1:
        raise NotSplittable("its trunk gives more than one tensor")
    for node in graph.find_nodes(op="get_attr"):
        raise NotSplittable(f"it runs a part of itself in a context of its own ({node.target})")
    keys = [""] if isinstance(example, Tensor) else sorted(example)
    places = [node.name for node in graph.find_nodes(op="placeholder") if node.name not in tensors]
    given = [node.meta["val"] for node in graph.nodes if node.name in places]
    _drop_checks(graph)
    _make_pure(graph, tensors)
    return Traced(
        graph=graph,
        tensors=tensors,
        inputs=dict(zip(places, keys if isinstance(example, Tensor) else list(example), strict=True)),
        bound=frozenset(_bound(graph, tensors, moving)),
        batch=frozenset(symbol_of(value.shape[0]) for value in given),
        tokens=frozenset(symbol_of(size) for value in given for size in value.shape[1:2] if is_symbolic(size)),
    )


def is_symbolic(size: Any) -> bool:
    """Whether a size is not one number."""
    return isinstance(size, torch.SymInt)


def symbol_of(size: Any) -> Any:
    """The symbol, or the formula, of a size that is not one number; None for one that is."""
    return size.node.expr if is_symbolic(size) else None


def price_of_repeating(node: fx.Node) -> float:
    """What computing a node again costs per batch, in bytes written."""
    values = [value for value in _tensors_of(node.meta.get("val"))]
    if node.target is operator.getitem or _is_view(node):
        return 0.0
    written = sum(_hinted(value) * value.element_size() for value in values)
    return written + _operations(node) / _FLOPS_PER_BYTE


def bytes_of(value: Tensor) -> float:
    """Bytes of a traced tensor at the sizes that it was traced with."""
    return float(_hinted(value) * value.element_size())


def hint(size: Any) -> int:
    """The number that a size had while tracing."""
    return int(size.node.hint) if is_symbolic(size) else int(size)


def _dynamic(example: Inputs) -> Any:
    free = torch.export.Dim.DYNAMIC
    if isinstance(example, Tensor):
        return {0: free}
    return {name: {0: free, 1: free} if tensor.ndim > 1 else {0: free} for name, tensor in example.items()}


def _drop_checks(graph: fx.Graph) -> None:
    for node in reversed(list(graph.nodes)):
        if node.op == "call_function" and any(word in getattr(node.target, "__name__", "") for word in _CHECKS):
            graph.erase_node(node)


def _make_pure(graph: fx.Graph, tensors: Mapping[str, Tensor]) -> None:
    """Replace in-place operations on activations by pure ones: what is stored must not be overwritten later."""
    order = {node: place for place, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        for written in _written(node):
            if written.name in tensors or _is_random(node):
                continue  # state, and fresh noise, are written where they are read: in every pass
            pure = _pure_twin(node.target)
            if pure is None:
                raise NotSplittable(f"it writes into a tensor in place ({node.target})")
            if _seen_elsewhere(written, node, order):
                raise NotSplittable(f"it writes in place ({node.target}) into a tensor of which it keeps a view")
            node.target = pure
            later = [user for user in written.users if order.get(user, 0) > order[node]]
            for user in later:
                user.replace_input_with(written, node)


def _written(node: fx.Node) -> list[fx.Node]:
    if node.op != "call_function" or not isinstance(node.target, OpOverload) or not node.target._schema.is_mutable:
        return []
    written = []
    for place, argument in enumerate(node.target._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = node.args[place] if place < len(node.args) else node.kwargs.get(argument.name)
            written += [value] if isinstance(value, fx.Node) else []
    return written


def _pure_twin(operation: Any) -> Any:
    name = operation._schema.name.split("::")[1]
    packet = getattr(_ATEN, name[:-1], None) if name.endswith("_") else None
    return getattr(packet, operation._overloadname, None)


def _seen_elsewhere(written: fx.Node, writer: fx.Node, order: Mapping[fx.Node, int]) -> bool:
    """Whether a view of what is written, or what it is a view of, is read after the writing."""
    relatives = [user for user in written.users if _is_view(user)]
    relatives += [source for source in written.all_input_nodes if _is_view(written)]
    return any(order.get(user, 0) > order[writer] for relative in relatives for user in relative.users)


def _is_view(node: fx.Node) -> bool:
    if node.op != "call_function" or not isinstance(node.target, OpOverload):
        return False
    return any(
        result.alias_info is not None and not result.alias_info.is_write for result in node.target._schema.returns
    )


def _bound(graph: fx.Graph, tensors: Mapping[str, Tensor], moving: frozenset[int]) -> Iterator[str]:
    """Names of the nodes that have to be computed in every pass, in order; see Traced."""
    given = {node: tensors[node.name] for node in graph.nodes if node.name in tensors}
    bound: set[fx.Node] = {node for node in given if given[node].requires_grad or id(given[node]) in moving}
    for node in graph.nodes:
        changing = [written for written in _written(node)]
        if _uses_batch_statistics(node):
            changing += [part for part in node.all_input_nodes if part.name in tensors]
        if changing or _is_random(node) or _uses_batch_statistics(node) or bound & set(node.all_input_nodes):
            bound |= {node, *changing}
    # what reads a tensor that is written later reads it before: the state of each pass
    for node in graph.nodes:
        if bound & set(node.all_input_nodes):
            bound.add(node)
    yield from (node.name for node in graph.nodes if node in bound)


def _is_random(node: fx.Node) -> bool:
    if not isinstance(node.target, OpOverload) or torch.Tag.nondeterministic_seeded not in node.target.tags:
        return False
    arguments = node.target._schema.arguments
    given = {argument.name: argument.default_value for argument in arguments if argument.has_default_value()}
    given |= {argument.name: value for argument, value in zip(arguments, node.args, strict=False)} | dict(node.kwargs)
    if "train" in given:
        return bool(given["train"]) and given["p"] != 0
    return given.get("dropout_p") != 0


def _uses_batch_statistics(node: fx.Node) -> bool:
    """Whether a normalisation looks at the whole batch; it writes its running statistics too."""
    if node.target in (_ATEN.batch_norm.default, _ATEN.instance_norm.default):
        return bool(node.args[5])
    return False


def _tensors_of(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors_of(part)


def _hinted(value: Tensor) -> int:
    return math.prod(hint(size) for size in value.shape)


def _operations(node: fx.Node) -> float:
    """Floating point operations of the nodes that have many; elementwise ones count by what they write."""
    value = next(_tensors_of(node.meta.get("val")), None)
    if value is None:
        return 0.0
    shapes = [part.meta["val"].shape for part in node.all_input_nodes if isinstance(part.meta.get("val"), Tensor)]
    if node.target is _ATEN.linear.default or node.target in (_ATEN.matmul.default, _ATEN.bmm.default):
        return 2.0 * _hinted(value) * hint(shapes[0][-1])
    if node.target in (_ATEN.conv2d.default, _ATEN.conv1d.default, _ATEN.convolution.default):
        return 2.0 * _hinted(value) * math.prod(map(hint, shapes[1][1:]))
    if node.target is _ATEN.scaled_dot_product_attention.default:
        return 4.0 * _hinted(value) * hint(shapes[1][-2])
    return 0.0


def nodes_between(wanted: Iterable[fx.Node], known: Iterable[fx.Node]) -> set[fx.Node]:
    """All nodes that `wanted` are computed from, themselves included, down to those that are `known`."""
    stop, found, open_nodes = set(known), set(), list(wanted)
    while open_nodes:
        node = open_nodes.pop()
        if node not in found and node not in stop:
            found.add(node)
            open_nodes += node.all_input_nodes
    return found
