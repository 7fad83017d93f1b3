"""Images and maps by pixels: the channels of a pixel side by side in memory, as convolutions on the CPU want them.

torch lays images out by planes. oneDNN, which computes its convolutions, copies planes back and forth, and the
gradients of convolutions that see one channel at a time take five times as long from them (docs/log.md). The layout of
what enters the first convolution is that of all that follows; answers differ by rounding.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, final

import torch
from torch import Tensor, fx, nn

from ...backends import Inputs, by_pixels, size_of
from ...data import Batch
from ...data._batch import rows
from ...data._randomness import own_random_state
from ...nn import TaskHead
from .feeds import Feed
from .graph import NotSplittable
from .rehearsal import check_same, put_back

_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
_OPERATIONS = ("conv2d", "conv_transpose2d", "convolution")  # of a graph, in torch.ops.aten
_TRIED = 2  # samples
_TOLERANCE = 1e-2  # in fp32: sums are made in another order, and gradients that are 0 but for rounding differ the more
_EXACT = 1e-5  # in fp64


@final
class FeedByPixels:
    """The batches of another feed, laid out by pixels where its module is faster with them, and does the same."""

    def __init__(self, feed: Feed, training: bool) -> None:
        self._feed, self._training = feed, training
        self._layout: Layout | None = None

    @property
    def module(self) -> nn.Module:
        """That of the other feed."""
        return self._feed.module

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The other feed's batches."""
        for batch in self._feed.epoch(epoch, start):
            if self._layout is None or self._layout.module is not self.module:
                self._layout = Layout(self.module, self._training)
            inputs = self._layout(batch.inputs, batch.targets)
            yield batch if inputs is batch.inputs else replace(batch, inputs=inputs)

    def whole(self, batch: Batch, epoch: int) -> Batch:
        """As the other feed gives it."""
        return self._feed.whole(batch, epoch)


@final
class Layout:
    """Lays batches out by pixels, if a module convolves and does the same with them: one answer, by the first batch.

    training: steps are made with the module, so its gradients have to be the same too. Compared in fp32, whatever the
    precision of the steps: what a forward reads in the order of memory is wrong in any, and fewer digits hide it. Where
    that differs, a copy in fp64 tells rounding, which batch norms of a few samples can blow up, from another answer.
    """

    def __init__(self, module: nn.Module, training: bool) -> None:
        self.module = module
        self._training = training
        self._is_by_pixels: bool | None = None

    def __call__(self, inputs: Inputs, targets: Any = None) -> Any:
        """A batch's inputs, so or as they are. targets: where losses may have to be compared."""
        if self._is_by_pixels is None:
            with own_random_state():
                self._is_by_pixels = wants_pixels(self.module, inputs) and self._does_the_same(inputs, targets)
        return by_pixels(inputs) if self._is_by_pixels else inputs

    def _does_the_same(self, inputs: Inputs, targets: Any) -> bool:
        """A few samples in both layouts: a forward may read maps as they lie in memory, and so may what follows it."""
        places = torch.arange(_TRIED) % size_of(inputs)  # one sample alone could be read in both ways
        few = rows(inputs, places) if size_of(inputs) > 1 else _second_mirrored(rows(inputs, places))
        head = getattr(self.module, "head", None)
        needs_targets = isinstance(head, TaskHead) and head.reads != "vector" and targets is not None
        try:
            with _dropping(self.module):
                self._compare(few, rows(targets, places) if needs_targets else None)
        except Exception:  # what is wrong with the samples themselves is told where they are used
            return False
        return True

    def _compare(self, few: Inputs, targets: Any) -> None:
        if targets is not None:  # then losses are compared, and answers have to be possible
            with put_back(self.module), torch.no_grad():
                self.module(by_pixels(_in(torch.float32, few)))
        try:
            self._check(self.module, _in(torch.float32, few), targets, _TOLERANCE)
        except NotSplittable:
            self._check(copy.deepcopy(self.module).double(), _in(torch.float64, few), targets, _EXACT)

    def _check(self, module: nn.Module, few: Inputs, targets: Any, tolerance: float) -> None:
        check_same(
            module,
            few,
            module,
            by_pixels(few),
            precision="fp32",
            training=self._training,
            targets=targets,
            tolerance=tolerance,
        )


def _in(precision: torch.dtype, inputs: Inputs) -> Inputs:
    """Fractions in that precision, or in a higher one that they have: what frozen layers gave may come in bf16."""
    if isinstance(inputs, Mapping):
        return {name: _raised(part, precision) for name, part in inputs.items()}
    return _raised(inputs, precision)


def _raised(part: Tensor, precision: torch.dtype) -> Tensor:
    return part.to(torch.promote_types(part.dtype, precision)) if part.is_floating_point() else part


def _second_mirrored(inputs: Inputs) -> Inputs:
    """Two samples that were the same, which batch norm would give no gradients."""
    if isinstance(inputs, Mapping):
        return {
            name: torch.stack([part[0], part[1].flip(-1)]) if _is_map(part) else part for name, part in inputs.items()
        }
    return torch.stack([inputs[0], inputs[1].flip(-1)])


@contextlib.contextmanager
def _dropping(module: nn.Module) -> Iterator[None]:
    """Half of what may be dropped is, inside the block: of maps that is drawn in the order in which they lie."""
    layers = [(part, part.p) for part in module.modules() if isinstance(part, nn.Dropout)]
    try:
        for layer, _ in layers:
            layer.p = 0.5
        yield
    finally:
        for layer, share in layers:
            layer.p = share


def wants_pixels(module: nn.Module, inputs: Inputs) -> bool:
    """Whether oneDNN convolves in the module, and there are maps among its inputs."""
    parts = list(inputs.values()) if isinstance(inputs, Mapping) else [inputs]
    if not torch.backends.mkldnn.is_available() or not any(map(_is_map, parts)):
        return False
    return all(parameter.device.type == "cpu" for parameter in module.parameters()) and _convolves(module)


def _is_map(part: Any) -> bool:
    return isinstance(part, Tensor) and part.ndim == 4 and part.numel() > 0 and part.device.type == "cpu"


def _convolves(module: nn.Module) -> bool:
    for part in module.modules():
        if isinstance(part, fx.GraphModule):
            operations = [str(node.target).split(".") for node in part.graph.nodes if node.op == "call_function"]
            if any(names[0] == "aten" and names[1] in _OPERATIONS for names in operations if len(names) > 1):
                return True
        elif isinstance(part, _CONVOLUTIONS):
            return True
    return False
