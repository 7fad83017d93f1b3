"""Bottleneck adapters: small networks beside the layers of a frozen one.

Houlsby et al., Parameter-Efficient Transfer Learning for NLP, ICML 2019; Pfeiffer et al., AdapterFusion, EACL 2021;
He et al., Towards a Unified View of Parameter-Efficient Transfer Learning, ICLR 2022.
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn

from .wrapping import Wrapper, first_of, with_first

PARALLEL_SCALE = 4.0  # He et al. 2022, section 4.6


@final
class Bottleneck(nn.Module):
    """A(x) = U f(D x): D from the layer's width d down to m, U back up; without the residual connection.

    2 d m + d + m parameters (Houlsby et al. 2019, section 2.1). D begins as linear layers do; U is drawn with a
    standard deviation of `init_scale`, so that A is near zero and learns from the first step.

    maps: the input is (n, d, height, width), else (…, d).
    """

    def __init__(self, width: int, size: int, *, init_scale: float, activation: nn.Module, maps: bool) -> None:
        super().__init__()
        if maps:
            self.down: nn.Module = nn.Conv2d(width, size, 1)
            self.up: nn.Module = nn.Conv2d(size, width, 1)
        else:
            self.down, self.up = nn.Linear(width, size), nn.Linear(size, width)
        self.activation = activation
        with torch.no_grad():
            self.down.get_parameter("bias").zero_()
            self.up.get_parameter("bias").zero_()
            self.up.get_parameter("weight").normal_(std=init_scale)

    def forward(self, inputs: Tensor) -> Tensor:
        """As many features out as in."""
        outputs: Tensor = self.up(self.activation(self.down(inputs)))
        return outputs


@final
class AdaptedOutput(Wrapper):
    """h + A(h), h what the layer gives: a sublayer before its residual connection, or a whole block after it."""

    def __init__(self, base_layer: nn.Module, adapter: Bottleneck) -> None:
        super().__init__(base_layer)
        self.adapter = adapter

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """What the layer takes and gives."""
        outputs = self.base_layer(*inputs, **options)
        hidden = first_of(outputs)
        return with_first(outputs, hidden + self.adapter(hidden))


@final
class AdaptedNorm(Wrapper):
    """N(s + A(N(s))), N the norm behind a residual connection and s the sum: Pfeiffer et al. 2021, section 2.2."""

    def __init__(self, base_layer: nn.Module, adapter: Bottleneck) -> None:
        super().__init__(base_layer)
        self.adapter = adapter

    def forward(self, total: Tensor) -> Tensor:
        """(…, d) -> (…, d)"""
        outputs: Tensor = self.base_layer(total + self.adapter(self.base_layer(total)))
        return outputs


@final
class AdaptedInParallel(Wrapper):
    """g(x) + 4 A(x), g a block's feed-forward part: He et al. 2022, table 3."""

    def __init__(self, base_layer: nn.Module, adapter: Bottleneck) -> None:
        super().__init__(base_layer)
        self.adapter = adapter

    def forward(self, inputs: Tensor) -> Tensor:
        """(…, d) -> (…, d)"""
        outputs: Tensor = self.base_layer(inputs) + PARALLEL_SCALE * self.adapter(inputs)
        return outputs


@final
class AdaptedJoin(Wrapper):
    """The same where a layer adds the residual x itself, as BERT's do: g(h, x) becomes g(h, x + 4 A(x))."""

    def __init__(self, base_layer: nn.Module, adapter: Bottleneck) -> None:
        super().__init__(base_layer)
        self.adapter = adapter

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        """(…, m), (…, d) -> (…, d)"""
        outputs: Tensor = self.base_layer(hidden, residual + PARALLEL_SCALE * self.adapter(residual))
        return outputs
