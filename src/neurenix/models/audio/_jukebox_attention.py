"""The blocks of Jukebox's sparse transformer: which codes each code looks at, and the block around it.

Dhariwal et al., Jukebox, 2020, arXiv:2005.00341, section 4 and appendix A: a sequence is laid out in rows of equal
length, and blocks look, in turn, along the row, along the column, and at the row before (after Child et al., Generating
Long Sequences with Sparse Transformers, 2019). All of it is causal, so that the first codes of a sequence get the same
whatever follows, and a short sequence needs no padding beyond its last row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import ConfigurationError


class Pattern(Enum):
    """What a block's attention sees."""

    ALL = "every code before"
    ROW = "those before in its row"
    COLUMN = "those before in its column"
    PREVIOUS_ROW = "the whole row before"
    LYRICS = "the lyrics, given by an encoder of their own"
    PREFIX = "the lyrics, which stand before the codes in the same sequence"


def pattern_of(order: int, block: int) -> Pattern:
    """The pattern of a block, counted from 0, for the published checkpoints' orders 2, 10 and 12.

    2: rows, columns and previous rows in turn. 10: the same, with the lyrics as every tenth block but for the first
    time. 12: the same, with every sixteenth block on the lyrics before the codes, or, each third time, on everything.
    """
    in_turn = (Pattern.ROW, Pattern.COLUMN, Pattern.PREVIOUS_ROW)
    if order == 2:
        return in_turn[block % 3]
    if order == 10:
        place = block % 79
        if place < 9:
            return in_turn[place % 3]
        return Pattern.LYRICS if (place - 9) % 10 == 9 else in_turn[(place - 9) % 10 % 3]
    if order == 12:
        return (Pattern.PREFIX, Pattern.PREFIX, Pattern.ALL)[block % 3] if block % 16 == 15 else in_turn[block % 3]
    raise ConfigurationError(f"attention order {order}; those of the published priors are 2, 10 and 12.")


@dataclass(frozen=True, kw_only=True)
class AttentionLayout:
    """How a sequence is laid out. row: codes to a row. prefix: first codes of the sequence that PREFIX looks at."""

    row: int
    prefix: int = 0


def attend(pattern: Pattern, query: Tensor, key: Tensor, value: Tensor, layout: AttentionLayout) -> Tensor:
    """softmax(q kᵀ / √d) v over what the pattern lets each place see. All (n, heads, t, d); t a multiple of the row.

    The first row has no row before it; it gets zeros.
    """
    if pattern is Pattern.ALL:
        return functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    if pattern is Pattern.LYRICS:
        return functional.scaled_dot_product_attention(query, key, value)
    if pattern is Pattern.PREFIX:
        key, value = key[:, :, : layout.prefix], value[:, :, : layout.prefix]
        seen = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
    query, key, value = (tensor.unflatten(2, (-1, layout.row)) for tensor in (query, key, value))
    return _IN_ROWS[pattern](query, key, value).flatten(2, 3)


def _along_rows(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(n, heads, rows, row, d)"""
    return functional.scaled_dot_product_attention(query, key, value, is_causal=True)


def _along_columns(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(n, heads, rows, row, d)"""
    return _along_rows(query.transpose(2, 3), key.transpose(2, 3), value.transpose(2, 3)).transpose(2, 3)


def _at_previous_rows(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(n, heads, rows, row, d)"""
    key, value = (functional.pad(tensor[:, :, :-1], (0, 0, 0, 0, 1, 0)) for tensor in (key, value))
    return functional.scaled_dot_product_attention(query, key, value)


_IN_ROWS: dict[Pattern, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    Pattern.ROW: _along_rows,
    Pattern.COLUMN: _along_columns,
    Pattern.PREVIOUS_ROW: _at_previous_rows,
}


@final
class FactoredAttention(nn.Module):
    """Attention of one pattern over fewer features than the block has (a quarter, in the published priors).

    width: features of the block; state: those of query, key and value together over all heads.
    """

    def __init__(self, width: int, state: int, heads: int, pattern: Pattern, layout: AttentionLayout) -> None:
        super().__init__()
        self.heads, self.pattern, self.layout = heads, pattern, layout
        if pattern is Pattern.LYRICS:
            self.c_attn = nn.Linear(width, state)
            self.c_enc_kv = nn.Linear(width, 2 * state)
        else:
            self.c_attn = nn.Linear(width, 3 * state)
        self.c_proj = nn.Linear(state, width)

    def forward(self, hidden: Tensor, lyrics: Tensor | None = None) -> Tensor:
        """hidden: (n, t, width), lyrics: (n, words, width), for their pattern alone -> (n, t, width)"""
        query, key, value = (self._by_head(part) for part in self._parts(hidden, lyrics))
        filled = -hidden.shape[1] % self.layout.row
        if self.pattern in _IN_ROWS:
            query, key, value = (functional.pad(part, (0, 0, 0, filled)) for part in (query, key, value))
        seen = attend(self.pattern, query, key, value, self.layout)[:, :, : hidden.shape[1]]
        return cast(Tensor, self.c_proj(seen.transpose(1, 2).flatten(2)))

    def _parts(self, hidden: Tensor, lyrics: Tensor | None) -> tuple[Tensor, ...]:
        if self.pattern is not Pattern.LYRICS:
            return cast(Tensor, self.c_attn(hidden)).chunk(3, 2)
        if lyrics is None:
            raise ConfigurationError("this block looks at lyrics, and none were encoded.")
        return (self.c_attn(hidden), *cast(Tensor, self.c_enc_kv(lyrics)).chunk(2, 2))

    def _by_head(self, part: Tensor) -> Tensor:
        return part.unflatten(2, (self.heads, -1)).transpose(1, 2)


@final
class FeedForward(nn.Module):
    """W₂ g(W₁ x), with g(x) = x σ(1.702 x), the quick form of GELU. (n, t, width) -> the same."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, inner)
        self.c_proj = nn.Linear(inner, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """See the class."""
        inner = self.c_fc(hidden)
        return cast(Tensor, self.c_proj(inner * torch.sigmoid(1.702 * inner)))


@final
class SparseBlock(nn.Module):
    """x + a + m, where a = attention(norm(x)) and m = feed-forward(norm(x + a)). (n, t, width) -> the same."""

    def __init__(self, attention: FactoredAttention, mlp: FeedForward, width: int) -> None:
        super().__init__()
        self.attn = attention
        self.ln_0 = nn.LayerNorm(width)
        self.mlp = mlp
        self.ln_1 = nn.LayerNorm(width)

    def forward(self, hidden: Tensor, lyrics: Tensor | None = None) -> Tensor:
        """See the class; lyrics: (n, words, width) for blocks that look at them."""
        hidden = hidden + self.attn(self.ln_0(hidden), lyrics)
        return cast(Tensor, hidden + self.mlp(self.ln_1(hidden)))


@dataclass(frozen=True, kw_only=True)
class TransformerSizes:
    """Sizes of one autoregressive transformer.

    vocabulary: codes, or lyric symbols, or both. context: places of the whole sequence, `lyrics` of them for lyric
    symbols in front. depth: blocks of the published network. state: features of attention, over all heads. inner: of
    the feed-forward parts. order: see pattern_of. rows: rows that the context is laid out in.
    """

    vocabulary: int
    context: int
    width: int
    depth: int
    heads: int
    state: int
    inner: int
    order: int
    rows: int
    lyrics: int = 0

    @property
    def layout(self) -> AttentionLayout:
        """Of the attention; blocks on lyrics in front see them and the codes up to the next multiple of `rows`."""
        prefix = (self.lyrics // self.rows + 1) * self.rows if self.lyrics else 0
        return AttentionLayout(row=self.context // self.rows, prefix=prefix)


@final
class SparseTransformer(nn.Module):
    """The first `blocks` blocks of a sparse transformer. (n, t, width) -> the same."""

    def __init__(self, sizes: TransformerSizes, blocks: int) -> None:
        super().__init__()
        self._attn_mods = nn.ModuleList(
            SparseBlock(
                FactoredAttention(sizes.width, sizes.state, sizes.heads, pattern_of(sizes.order, block), sizes.layout),
                FeedForward(sizes.width, sizes.inner),
                sizes.width,
            )
            for block in range(blocks)
        )

    def forward(self, hidden: Tensor, lyrics: Tensor | None = None) -> Tensor:
        """See the class; lyrics: (n, words, width) for blocks that look at them."""
        for block in self._attn_mods:
            hidden = block(hidden, lyrics)
        return hidden
