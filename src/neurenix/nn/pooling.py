"""From a feature map or a sequence of tokens to one vector per sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor, nn

from ..errors import InputMismatchError
from ..registry import Registry

POOLINGS: Registry[Callable[[Tensor, Tensor], Tensor]] = Registry("pooling mode")


@final
class Pool(nn.Module):
    """Pool `(n, channels, *space)` maps or `(n, tokens, channels)` sequences into `(n, channels)`.

    mode: a name in POOLINGS, or "none", which leaves features as they are.
    channels_last: True for token sequences (ViT, BERT) and NHWC maps, False for NCHW maps.
    prefix_tokens: number of leading tokens that are not places (class, register, distillation tokens);
        every mode except "cls" leaves them out.
    """

    def __init__(self, mode: str, *, channels_last: bool = False, prefix_tokens: int = 0) -> None:
        super().__init__()
        self.mode = "none" if mode in (None, "none") else POOLINGS.canonical(mode)
        self.channels_last = channels_last
        self.prefix_tokens = prefix_tokens

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """features: any layout named in the class docstring. mask: (n, tokens), 1 where a token is real."""
        if self.mode == "none" or features.ndim <= 2:
            return features
        tokens = as_tokens(features, self.channels_last)
        weights = tokens.new_ones(tokens.shape[:2]) if mask is None else mask.to(tokens.dtype)
        if self.mode != "cls":
            tokens, weights = tokens[:, self.prefix_tokens :], weights[:, self.prefix_tokens :]
        elif not self.channels_last:
            raise InputMismatchError(
                "pooling='cls' takes the first token of a sequence, but these features are a feature map of shape "
                f"{tuple(features.shape)}; use 'avg', 'max' or 'gem'."
            )
        return POOLINGS[self.mode](tokens, weights)

    def extra_repr(self) -> str:
        """What print(model) shows of it."""
        return f"{self.mode!r}, channels_last={self.channels_last}, prefix_tokens={self.prefix_tokens}"


@POOLINGS.register("avg", "mean", "average")
def average(tokens: Tensor, weights: Tensor) -> Tensor:
    """Mean over the real tokens. tokens: (n, t, d), weights: (n, t) in {0, 1} -> (n, d)."""
    # Two ways, so that gradients lie in memory as the tokens do, and layers below need not copy them.
    if tokens.stride(-1) == 1:
        total = torch.bmm(weights.unsqueeze(1), tokens).squeeze(1)
    else:
        total = torch.bmm(tokens.transpose(1, 2), weights.unsqueeze(2)).squeeze(2)
    return total / weights.sum(1, keepdim=True).clamp(min=1)


@POOLINGS.register("max")
def maximum(tokens: Tensor, weights: Tensor) -> Tensor:
    """Largest value over the real tokens. tokens: (n, t, d), weights: (n, t) -> (n, d)."""
    return tokens.masked_fill(weights.unsqueeze(-1) == 0, torch.finfo(tokens.dtype).min).amax(1)


@POOLINGS.register("cls", "token", "first")
def first(tokens: Tensor, weights: Tensor) -> Tensor:
    """The first token, which BERT and ViT train to stand for the whole. (n, t, d) -> (n, d)."""
    return tokens[:, 0]


@POOLINGS.register("last")
def last(tokens: Tensor, weights: Tensor) -> Tensor:
    """The last real token, which decoders (GPT) train to have read everything. (n, t, d) -> (n, d)."""
    places = torch.arange(tokens.shape[1], device=tokens.device)
    final_place = (places * (weights != 0)).argmax(1)
    return tokens[torch.arange(tokens.shape[0], device=tokens.device), final_place]


@POOLINGS.register("gem")
def generalised_mean(tokens: Tensor, weights: Tensor, power: float = 3.0, floor: float = 1e-6) -> Tensor:
    """Generalised mean (mean of x^p)^(1/p) with p = 3 over clamped activations; between average and maximum.

    Radenović, Tolias & Chum, Fine-tuning CNN Image Retrieval with No Human Annotation, TPAMI 2019, eq. 3.
    tokens: (n, t, d), weights: (n, t) -> (n, d)
    """
    return average(tokens.clamp(min=floor).pow(power), weights).pow(1 / power)


def as_tokens(features: Tensor, channels_last: bool) -> Tensor:
    """(n, c, *space) or (n, *space, c) -> (n, places, c)."""
    return features.flatten(1, -2) if channels_last else features.flatten(2).transpose(1, 2)
