"""Target texts of language and translation models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

_IGNORED = -100  # where there is no target


def padded_targets(ids: Sequence[Sequence[int]]) -> Tensor:
    """Token numbers of each text -> (n, longest) int64, filled up with -100."""
    rows = [torch.tensor(row, dtype=torch.int64) for row in ids]
    return pad_sequence(rows, batch_first=True, padding_value=_IGNORED)


def restored(outputs: Any, decode: Callable[[Sequence[int]], str]) -> Any:
    """Texts for answers that are tokens (n, t), whole numbers; anything else (scores) as it is."""
    tokens = isinstance(outputs, Tensor) and outputs.ndim == 2 and not outputs.is_floating_point()
    return [decode(row) for row in outputs.tolist()] if tokens else outputs
