"""What batch norms that are trained do with two domains whose statistics differ."""

from __future__ import annotations

import abc
import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from ...data._batch import rows
from ...registry import Registry
from .method import Inputs

Ask = Callable[[Inputs], tuple[Tensor, Tensor]]
NORMS: Registry[type[NormPolicy]] = Registry("policy for batch norms of two domains")


class NormPolicy(nn.Module, abc.ABC):
    """How a batch of both domains goes through the model.

    reads_inputs: why the samples themselves are needed; None where the frozen prefix may stand for what is below.
    """

    reads_inputs: ClassVar[str | None] = None

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        self._layers = norms  # in a list: they belong to the model

    def prepared(self, domain: str) -> contextlib.AbstractContextManager[None]:
        """What the model's norms are for a pass of samples of one domain alone, "source" or "target"."""
        return contextlib.nullcontext()

    def originals(self) -> dict[nn.Parameter, nn.Parameter]:
        """Parameters of the policy's own that are trained as others of the model are: those, and these."""
        return {}

    @abc.abstractmethod
    def forward(self, ask: Ask, inputs: Inputs, source: Tensor) -> tuple[Tensor, Tensor]:
        """(features (n, d), outputs (n, k)) of all samples, in their order. source: (n,) on the CPU, which are of the
        source.
        """


@NORMS.register("joint")
@final
class Joint(NormPolicy):
    """Both domains are normalised together, as one batch; the running statistics are those of the mixture."""

    def forward(self, ask: Ask, inputs: Inputs, source: Tensor) -> tuple[Tensor, Tensor]:
        """One pass."""
        return ask(inputs)


class _Apart(NormPolicy):
    """Each domain is normalised by its own statistics, in a pass of its own."""

    def forward(self, ask: Ask, inputs: Inputs, source: Tensor) -> tuple[Tensor, Tensor]:
        """Two passes, or one where a batch has one domain."""
        found: list[tuple[Tensor, Tensor]] = []
        parts = [part.nonzero().flatten() for part in (source, ~source)]
        for domain, places in zip(("source", "target"), parts, strict=True):
            if len(places):
                with self.prepared(domain):
                    found.append(ask(rows(inputs, places)))
        order = torch.cat(parts).argsort()
        return torch.cat([part[0] for part in found])[order], torch.cat([part[1] for part in found])[order]


@NORMS.register("separate")
@final
class Separate(_Apart):
    """Each domain by its own batch; the running statistics follow both in turn."""


@NORMS.register("source")
@final
class Source(_Apart):
    """Each domain by its own batch; the running statistics, which predictions use, are the source's."""

    def prepared(self, domain: str) -> contextlib.AbstractContextManager[None]:
        """See NormPolicy."""
        return contextlib.nullcontext() if domain == "source" else kept_statistics(self._layers)


@NORMS.register("target")
@final
class Target(_Apart):
    """Each domain by its own batch; the running statistics, which predictions use, are the target's.

    Li et al., Revisiting Batch Normalization for Practical Domain Adaptation, ICLR workshop 2017.
    """

    def prepared(self, domain: str) -> contextlib.AbstractContextManager[None]:
        """See NormPolicy."""
        return contextlib.nullcontext() if domain == "target" else kept_statistics(self._layers)


@NORMS.register("per_domain", "domain_specific")
@final
class PerDomain(_Apart):
    """Each domain has scales, shifts and statistics of its own; the model keeps the target's.

    Chang et al., Domain-Specific Batch Normalization for Unsupervised Domain Adaptation, CVPR 2019. The source's begin
    as copies, are trained beside the model, and are left behind with the objective.
    """

    reads_inputs = "each domain has batch norms of its own"

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.source = nn.ModuleList([copy.deepcopy(layer) for layer in self._layers])

    def originals(self) -> dict[nn.Parameter, nn.Parameter]:
        """Of each parameter of the source's norms the one that it began as."""
        own = (parameter for layer in self.source for parameter in layer.parameters())
        theirs = (parameter for layer in self._layers for parameter in layer.parameters())
        return dict(zip(own, theirs, strict=True))

    def prepared(self, domain: str) -> contextlib.AbstractContextManager[None]:
        """See NormPolicy."""
        return self._swapped() if domain == "source" else contextlib.nullcontext()

    @contextlib.contextmanager
    def _swapped(self) -> Iterator[None]:
        """The tensors of norms that are trained are the source's inside the block."""
        pairs = [(layer, own) for layer, own in zip(self._layers, self.source, strict=True) if layer.training]
        _swap(pairs)
        try:
            yield
        finally:
            _swap(pairs)


def _swap(pairs: Sequence[tuple[nn.Module, nn.Module]]) -> None:
    for one, other in pairs:
        one._parameters, other._parameters = other._parameters, one._parameters
        one._buffers, other._buffers = other._buffers, one._buffers


@contextlib.contextmanager
def kept_statistics(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Running statistics of batch norms that are trained are after the block what they were before it."""
    before = [(buffer, buffer.clone()) for layer in layers if layer.training for buffer in layer.buffers()]
    try:
        yield
    finally:
        for buffer, kept in before:
            buffer.data.copy_(kept)  # past autograd, as the layers themselves write them
