"""Learned tokens that are put before those of the input: soft prompts for texts, visual prompts for ViTs.

Lester et al., The Power of Scale for Parameter-Efficient Prompt Tuning, EMNLP 2021; Jia et al., Visual Prompt Tuning,
ECCV 2022, section 3.2 (shallow: prompts go in before the first block and pass through all; deep: each block has prompts
of its own).
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn

from .wrapping import Wrapper, tensor_of, with_tensor


@final
class Prompted(Wrapper):
    """A block that sees `count` learned tokens beside those of its input.

    prompts: (1, count, d) put in here; None where those of an earlier block come through. place: where among the
    tokens they stand, e.g. 1 for after the class token. removes: what the block made of them is taken out again.
    """

    def __init__(self, base_layer: nn.Module, count: int, prompts: Tensor | None, *, place: int, removes: bool) -> None:
        super().__init__(base_layer)
        self.count, self.place, self.removes = count, place, removes
        self.prompts = None if prompts is None else nn.Parameter(prompts)

    def forward(self, hidden: Tensor, *others: Any, **options: Any) -> Any:
        """(n, t, d) -> (n, t, d), with the prompts among the t wherever they were not put in or taken out here."""
        if self.prompts is not None:
            prompts = self.prompts.to(hidden.dtype).expand(hidden.shape[0], -1, -1)  # len() would fix it in a trace
            hidden = torch.cat([hidden[:, : self.place], prompts, hidden[:, self.place :]], 1)
        others = tuple(self._widened(hidden, value) for value in others)
        outputs = self.base_layer(hidden, *others, **{name: self._widened(hidden, options[name]) for name in options})
        if not self.removes:
            return outputs
        given = tensor_of(outputs)
        return with_tensor(outputs, torch.cat([given[:, : self.place], given[:, self.place + self.count :]], 1))

    def _widened(self, hidden: Tensor, value: Any) -> Any:
        """Attention masks for the tokens that there are now; anything else as it is."""
        is_mask = isinstance(value, Tensor) and value.ndim == 4 and value.shape[-1] + self.count == hidden.shape[1]
        return widened(value, self.count, self.place) if is_mask else value


def widened(mask: Tensor, count: int, place: int) -> Tensor:
    """An attention mask (n, heads, queries, keys) for `count` more tokens, which all tokens see.

    Booleans tell what is seen; numbers are added to the scores, so that 0 is what is seen. A prompt sees what the token
    before which it stands sees.
    """
    seen = torch.ones_like if mask.dtype == torch.bool else torch.zeros_like
    columns = seen(mask[..., :1]).expand(*mask.shape[:-1], count)
    mask = torch.cat([mask[..., :place], columns, mask[..., place:]], -1)
    if mask.shape[-2] == 1:  # the same for all queries
        return mask
    row = mask[..., min(place, mask.shape[-2] - 1), :].unsqueeze(-2)
    return torch.cat([mask[..., :place, :], row.expand(*mask.shape[:-2], count, -1), mask[..., place:, :]], -2)
