"""Scaling and shifting what a frozen layer gives: IA3 and SSF. Both can be folded into the layer's own weights."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn

from .wrapping import Wrapper


@final
class ScaledShifted(Wrapper):
    """γ ⊙ g(x) + β for each of a layer's output features, γ = 1 and β = 0 at first.

    Liu et al., Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning, NeurIPS 2022,
    section 3.3 (γ alone); Lian et al., Scaling & Shifting Your Features, NeurIPS 2022 (both).

    width: output features. maps: they are the second dimension, (n, d, …), else the last.
    first: those before it are left as they are (queries, in a layer that gives queries, keys and values at once).
    """

    def __init__(self, base_layer: nn.Module, width: int, *, shifts: bool, maps: bool, first: int = 0) -> None:
        super().__init__(base_layer)
        self.first, self.maps = first, maps
        self.scale = nn.Parameter(torch.ones(width - first))
        self.shift = nn.Parameter(torch.zeros(width - first)) if shifts else None

    def forward(self, *inputs: Any) -> Tensor:
        """What the layer takes and gives."""
        outputs: Tensor = self.base_layer(*inputs)
        scale, shift = self.whole()
        if self.maps:
            behind = (1,) * (outputs.ndim - 2)
            scale, shift = scale.view(-1, *behind), shift.view(-1, *behind)
        return outputs * scale if self.shift is None else outputs * scale + shift

    def whole(self) -> tuple[Tensor, Tensor]:
        """γ and β of all output features, (d,) each."""
        kept = self.scale.new_ones(self.first)
        shift = torch.zeros_like(self.scale) if self.shift is None else self.shift
        return torch.cat([kept, self.scale]), torch.cat([torch.zeros_like(kept), shift])


@final
class ScaledInput(Wrapper):
    """g(γ ⊙ x), γ = 1 at first: IA3 between the two layers of a feed-forward part. width: input features, (…, d)."""

    def __init__(self, base_layer: nn.Module, width: int) -> None:
        super().__init__(base_layer)
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, inputs: Tensor) -> Tensor:
        """(…, d) -> (…, m)"""
        outputs: Tensor = self.base_layer(inputs * self.scale)
        return outputs
