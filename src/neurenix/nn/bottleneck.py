"""Bottleneck adapters: small networks beside the layers of a frozen one.

Houlsby et al., Parameter-Efficient Transfer Learning for NLP, ICML 2019; Pfeiffer et al., AdapterFusion, EACL 2021;
He et al., Towards a Unified View of Parameter-Efficient Transfer Learning, ICLR 2022.
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn

from .wrapping import Wrapper, tensor_of, with_tensor

PARALLEL_SCALE = 4.0  # s of He et al. 2022


@final
class Bottleneck(nn.Module):
    """A(x) = U f(D x): D from the layer's width d down to m, U back up; without the residual connection.

    2 d m + d + m parameters (Houlsby et al. 2019, section 2.1). D begins as linear layers do; U is drawn with a
    standard deviation of `init_scale`, so that A is near zero and learns from the first step.

    maps: the input is (n, d, height, width) or (n, d, time), else (…, d).
    """

    def __init__(self, width: int, size: int, *, init_scale: float, activation: nn.Module, maps: bool) -> None:
        super().__init__()
        if maps:
            self.down: nn.Module = nn.Conv2d(width, size, 1)
            self.up: nn.Module = nn.Conv2d(size, width, 1)
        else:
            self.down, self.up = nn.Linear(width, size), nn.Linear(size, width)
        self.activation = activation
        self.maps = maps
        with torch.no_grad():
            self.down.get_parameter("bias").zero_()
            self.up.get_parameter("bias").zero_()
            self.up.get_parameter("weight").normal_(std=init_scale)

    def forward(self, inputs: Tensor) -> Tensor:
        """As many features out as in."""
        flat = self.maps and inputs.ndim == 3  # features over time alone
        outputs: Tensor = self.up(self.activation(self.down(inputs.unsqueeze(3) if flat else inputs)))
        return outputs.squeeze(3) if flat else outputs


class Adapted(Wrapper):
    """A layer with an adapter at a place that its subclass knows."""

    def __init__(self, base_layer: nn.Module, adapter: Bottleneck) -> None:
        super().__init__(base_layer)
        self.adapter = adapter


@final
class AdaptedOutput(Adapted):
    """h + A(h), h what the layer gives: a sublayer before its residual connection, or a whole block after it."""

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """What the layer takes and gives."""
        outputs = self.base_layer(*inputs, **options)
        hidden = tensor_of(outputs)
        return with_tensor(outputs, hidden + self.adapter(hidden))


@final
class AdaptedNorm(Adapted):
    """N(s + A(N(s))), N the norm behind a residual connection and s the sum: Pfeiffer et al. 2021."""

    def forward(self, total: Tensor) -> Tensor:
        """(…, d) -> (…, d)"""
        outputs: Tensor = self.base_layer(total + self.adapter(self.base_layer(total)))
        return outputs


@final
class AdaptedInParallel(Adapted):
    """g(x) + 4 A(x), g a block's feed-forward part: He et al. 2022."""

    def forward(self, inputs: Tensor) -> Tensor:
        """(…, d) -> (…, d)"""
        outputs: Tensor = self.base_layer(inputs) + PARALLEL_SCALE * self.adapter(inputs)
        return outputs


@final
class AdaptedJoin(Adapted):
    """The same where a layer adds the residual x itself, as BERT's do: g(h, x) becomes g(h, x + 4 A(x))."""

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        """(…, m), (…, d) -> (…, d)"""
        outputs: Tensor = self.base_layer(hidden, residual + PARALLEL_SCALE * self.adapter(residual))
        return outputs
