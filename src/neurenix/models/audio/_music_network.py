"""The Music Transformer's decoder, with absolute or relative attention: Huang et al., ICLR 2019, arXiv:1809.04281.

One network for two kinds of checkpoints, which differ in details that Vaswani et al. 2017 and its first libraries left
open; `layout` names the library that decided them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import ConfigurationError, InputMismatchError

LAYOUTS = ("tensor2tensor", "torch")
ATTENTIONS = ("absolute", "relative")
_LONGEST_PERIOD = 10_000.0


@dataclass(frozen=True, kw_only=True)
class MusicTransformerSizes:
    """Everything that defines the network; the defaults are Magenta's unconditional model of 16 layers.

    width: of the features. hidden: of the feed-forward parts. max_length: longest sequence of events.
    attention: "absolute" (positions are added to the embeddings and that is all) or "relative" (each layer has learned
        embeddings of distances too, shared by its heads).
    layout: "tensor2tensor": norms before each part, projections without biases, embeddings times √width, that of event
        0 zero, a half of sines and a half of cosines as positions, the embedding as the head. "torch": norms after each
        residual connection, biases, sines and cosines in turn, kept as a table, a head of its own.
    """

    vocabulary_size: int = 310
    width: int = 512
    layers: int = 16
    heads: int = 8
    hidden: int = 2048
    max_length: int = 2048
    attention: str = "absolute"
    layout: str = "tensor2tensor"
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.attention not in ATTENTIONS or self.layout not in LAYOUTS:
            raise ConfigurationError(
                f"attention={self.attention!r}, layout={self.layout!r}; possible are {', '.join(ATTENTIONS)} and "
                f"{', '.join(LAYOUTS)}."
            )
        numbers = (self.vocabulary_size, self.width, self.layers, self.heads, self.hidden, self.max_length)
        if min(numbers) < 1 or self.width % (2 * self.heads) or not 0 <= self.dropout < 1:
            raise ConfigurationError(
                f"{self} cannot be built: sizes are at least 1, the width an even multiple of the heads, and dropout a "
                "share below 1."
            )

    @property
    def stages(self) -> tuple[str, ...]:
        """The trunk's parts from input to output."""
        return ("embedding", *(f"layers.{layer}" for layer in range(self.layers)), "norm")

    @property
    def from_tensor2tensor(self) -> bool:
        """Which of the two layouts it is."""
        return self.layout == "tensor2tensor"


def skew(by_distance: Tensor) -> Tensor:
    """Logits by distance to logits by key, section 3.4.1 and figure 1 of the paper: O(L d) memory in place of O(L² d).

    by_distance: (…, queries, keys), column c for the distance keys - 1 - c back. The queries are the last of the keys.
    returns: (…, queries, keys), column j for key j; right of the diagonal stands what a mask has to cover.
    """
    queries, keys = by_distance.shape[-2:]
    padded = functional.pad(by_distance, (1, 0)).flatten(-2)
    return padded[..., queries:].unflatten(-1, (queries, keys))


@final
class KeyValues:
    """What a layer has computed of earlier events, so that generation computes each event once."""

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    @property
    def length(self) -> int:
        """How many events it holds."""
        return 0 if self.keys is None else self.keys.shape[-2]

    def extended(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values, (n, heads, events, width / heads), with those of new events behind the others."""
        if self.keys is not None and self.values is not None:
            keys, values = torch.cat([self.keys, keys], -2), torch.cat([self.values, values], -2)
        self.keys, self.values = keys, values
        return keys, values


@final
class SelfAttention(nn.Module):
    """softmax((Q Kᵀ + S) / √d) V, with S = skew(Q Eᵀ) for relative attention and none for absolute (eq. 3).

    relative: E, (max_length, d): the last row is for an event's relation to itself, the one before for its neighbour's.
    """

    def __init__(self, sizes: MusicTransformerSizes) -> None:
        super().__init__()
        bias = not sizes.from_tensor2tensor
        self.heads, self.dropout = sizes.heads, sizes.dropout
        self.q = nn.Linear(sizes.width, sizes.width, bias=bias)
        self.k = nn.Linear(sizes.width, sizes.width, bias=bias)
        self.v = nn.Linear(sizes.width, sizes.width, bias=bias)
        self.output_transform = nn.Linear(sizes.width, sizes.width, bias=bias)
        self.relative: nn.Parameter | None = None
        if sizes.attention == "relative":
            table = torch.empty(sizes.max_length, sizes.width // sizes.heads)
            self.relative = nn.Parameter(nn.init.normal_(table, std=table.shape[1] ** -0.5))

    def forward(self, hidden: Tensor, seen: Tensor, past: KeyValues | None = None) -> Tensor:
        """hidden: (n, t, width). seen: (n or 1, 1, t, keys), True where a key may be looked at. -> (n, t, width)"""
        query, key, value = (self._split(layer(hidden)) for layer in (self.q, self.k, self.v))
        if past is not None:
            key, value = past.extended(key, value)
        mask = seen if self.relative is None else self._scores(query, key.shape[-2]).masked_fill(~seen, -math.inf)
        dropout = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        return cast(Tensor, self.output_transform(mixed.transpose(1, 2).flatten(2)))

    def _split(self, features: Tensor) -> Tensor:
        """(n, t, width) -> (n, heads, t, d)"""
        return features.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _scores(self, query: Tensor, keys: int) -> Tensor:
        """S / √d: (n, heads, t, keys)"""
        table = cast(Tensor, self.relative)
        near = table[table.shape[0] - keys :].to(query.dtype)
        return skew(query @ near.T) / math.sqrt(query.shape[-1])


@final
class FeedForward(nn.Module):
    """W₂ relu(W₁ x + b₁) + b₂, under Tensor2Tensor's names."""

    def __init__(self, sizes: MusicTransformerSizes) -> None:
        super().__init__()
        self.conv1 = nn.Linear(sizes.width, sizes.hidden)
        self.conv2 = nn.Linear(sizes.hidden, sizes.width)
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """(n, t, width) -> (n, t, width)"""
        return cast(Tensor, self.conv2(self.dropout(functional.relu(self.conv1(hidden)))))


@final
class MusicLayer(nn.Module):
    """Attention and feed-forward part, each with its norm and residual connection."""

    def __init__(self, sizes: MusicTransformerSizes) -> None:
        super().__init__()
        self.norm_first = sizes.from_tensor2tensor
        self.self_attention_norm = new_norm(sizes)
        self.self_attention = SelfAttention(sizes)
        self.ffn_norm = new_norm(sizes)
        self.ffn = FeedForward(sizes)
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, hidden: Tensor, seen: Tensor, past: KeyValues | None = None) -> Tensor:
        """As SelfAttention."""
        if self.norm_first:
            hidden = hidden + self.dropout(self.self_attention(self.self_attention_norm(hidden), seen, past))
            return cast(Tensor, hidden + self.dropout(self.ffn(self.ffn_norm(hidden))))
        hidden = self.self_attention_norm(hidden + self.dropout(self.self_attention(hidden, seen, past)))
        return cast(Tensor, self.ffn_norm(hidden + self.dropout(self.ffn(hidden))))


def new_norm(sizes: MusicTransformerSizes) -> nn.LayerNorm:
    """A layer norm with the small number of the layout's library."""
    return nn.LayerNorm(sizes.width, eps=1e-6 if sizes.from_tensor2tensor else 1e-5)


@final
class PositionTable(nn.Module):
    """Positions as the torch layout keeps them in its files: (max_length, 1, width), a sine and a cosine in turn."""

    def __init__(self, sizes: MusicTransformerSizes) -> None:
        super().__init__()
        rates = _LONGEST_PERIOD ** -(torch.arange(0, sizes.width, 2) / sizes.width)
        angles = torch.arange(sizes.max_length).unsqueeze(1) * rates
        self.register_buffer("pe", torch.stack([angles.sin(), angles.cos()], -1).flatten(1).unsqueeze(1))

    def forward(self, places: Tensor) -> Tensor:
        """(t,) -> (t, width)"""
        return cast(Tensor, self.pe)[places, 0]


@final
class TimingSignal(nn.Module):
    """Positions as Tensor2Tensor computes them: sines of width / 2 periods from 1 to 10 000, then their cosines."""

    def __init__(self, sizes: MusicTransformerSizes) -> None:
        super().__init__()
        self.width = sizes.width

    def forward(self, places: Tensor) -> Tensor:
        """(t,) -> (t, width)"""
        half = self.width // 2
        steps = torch.arange(half, device=places.device) / max(half - 1, 1)
        angles = places.unsqueeze(1) * _LONGEST_PERIOD**-steps
        return torch.cat([angles.sin(), angles.cos()], -1)


@final
class MusicTransformer(nn.Module):
    """Events in, features of what each event and all before it say out; see MusicTransformerSizes."""

    def __init__(self, sizes: MusicTransformerSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.max_length, self.vocabulary_size = sizes.max_length, sizes.vocabulary_size
        self.embedding = nn.Embedding(sizes.vocabulary_size, sizes.width)
        self.positional_encoding = TimingSignal(sizes) if sizes.from_tensor2tensor else PositionTable(sizes)
        self.layers = nn.ModuleList(MusicLayer(sizes) for _ in range(sizes.layers))
        self.norm = new_norm(sizes)
        self.dropout = nn.Dropout(sizes.dropout)
        nn.init.normal_(self.embedding.weight, std=sizes.width**-0.5)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """`input_ids` (n, t), `attention_mask` (n, t) where some are padding -> (n, t, width).

        Raises InputMismatchError for inputs that are no mapping, or have more events than max_length.
        """
        if not isinstance(inputs, Mapping):
            raise InputMismatchError(
                f"this model reads a mapping with input_ids and attention_mask, not {type(inputs).__name__}; "
                "model.preprocess makes one of a MIDI file."
            )
        return self.read(inputs["input_ids"], inputs.get("attention_mask"))

    def read(self, events: Tensor, mask: Tensor | None = None, past: Sequence[KeyValues] | None = None) -> Tensor:
        """As forward; past: of each layer, where these events go on from others."""
        before = past[0].length if past else 0
        end = before + events.shape[1]
        if not torch.compiler.is_compiling() and end > self.max_length:
            raise InputMismatchError(f"{end} events came, and this model reads at most {self.max_length}; cut them.")
        keys = torch.arange(end, device=events.device)
        queries = keys[before:]
        seen = (keys <= queries.unsqueeze(1))[None, None]
        if mask is not None:
            # an event sees itself in any case, so that no row is empty
            seen = seen & (mask[:, None, None] != 0) | (keys == queries.unsqueeze(1))
        hidden = self._embedded(events, queries)
        for number, layer in enumerate(self.layers):
            hidden = layer(hidden, seen, past[number] if past else None)
        return cast(Tensor, self.norm(hidden))

    def _embedded(self, events: Tensor, places: Tensor) -> Tensor:
        hidden = self.embedding(events)
        if self.sizes.from_tensor2tensor:
            hidden = hidden * (events != 0).unsqueeze(-1) * math.sqrt(self.sizes.width)
        return cast(Tensor, self.dropout(hidden + self.positional_encoding(places).to(hidden.dtype)))
