"""Tokens of what is neither text nor image, for the transformers that read those."""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn


class InputTokens(nn.Module, abc.ABC):
    """Makes tokens (n, t, d) of a mapping of tensors, in the place of an embedding of words or patches."""

    @abc.abstractmethod
    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """See the class."""


@final
class FeatureTokens(InputTokens):
    """A token for each column of a table: b_j + x_j W_j of a number, b_j + row x_j of a table W_j of a category.

    Gorishniy et al., Revisiting Deep Learning Models for Tabular Data, NeurIPS 2021, section 3.3. All begin uniform in
    [-1 / sqrt(width), 1 / sqrt(width)], as there.
    {"values": (n, numbers), "categories": (n, columns of categories) int64} -> (n, numbers + columns, width)
    numbers: columns of numbers. categories: of each other column how many categories it has. width: of a token.
    """

    def __init__(self, numbers: int, categories: Sequence[int], width: int) -> None:
        super().__init__()
        self.numbers, self.categories, self.width = numbers, tuple(categories), width
        self.weight = nn.Parameter(torch.empty(numbers, width))
        self.bias = nn.Parameter(torch.empty(numbers + len(self.categories), width))
        self.tables = nn.ModuleList(nn.Embedding(count, width) for count in self.categories)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -1 / math.sqrt(width), 1 / math.sqrt(width))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """See the class."""
        tokens = []
        if self.numbers:
            tokens.append(inputs["values"].to(self.weight.dtype)[:, :, None] * self.weight)
        tokens += [table(inputs["categories"][:, place])[:, None] for place, table in enumerate(self.tables)]
        return torch.cat(tokens, 1) + self.bias


@final
class SeriesPatches(InputTokens):
    """A token for each piece of a series: a linear map of all channels of `patch` steps.

    Nie et al., A Time Series is Worth 64 Words (PatchTST), ICLR 2023, section 3.1, with patches that do not overlap and
    all channels in one token.
    {"series": (n, channels, length)} -> (n, length // patch, width)
    """

    def __init__(self, channels: int, patch: int, width: int) -> None:
        super().__init__()
        self.channels, self.patch, self.width = channels, patch, width
        self.proj = nn.Conv1d(channels, width, patch, patch)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """See the class."""
        series: Tensor = inputs["series"]
        return self.proj(series.to(self.proj.weight.dtype)).transpose(1, 2)


@final
class EmbeddedTokens(nn.Module):
    """What stands in the place of an encoder's embeddings: its first token, then other tokens, normed as its own were.

    tokens: inputs -> (n, t, d). first: (d,), the embedding of the token that begins every text. positions: (t, d).
    norm, dropout: those of the embeddings, under their names.
    """

    def __init__(
        self, tokens: InputTokens, first: Tensor, positions: Tensor, norm: nn.Module, dropout: nn.Module
    ) -> None:
        super().__init__()
        self.tokens = tokens
        self.first, self.positions = nn.Parameter(first), nn.Parameter(positions)
        self.LayerNorm, self.dropout = norm, dropout

    def forward(self, inputs: Mapping[str, Tensor]) -> Any:
        """(n, 1 + t, d)"""
        tokens = self.tokens(inputs) + self.positions
        first = self.first.expand(len(tokens), 1, -1)
        return self.dropout(self.LayerNorm(torch.cat([first, tokens], 1)))
