"""Small checkpoints in the layouts that segmentation networks are published in."""

from __future__ import annotations

import torch
from torch import Tensor


def brain_state(width: int = 4, channels: int = 3, outputs: int = 1) -> dict[str, Tensor]:
    """A checkpoint in the published layout, written from its list of names."""
    generator = torch.Generator().manual_seed(5)
    state: dict[str, Tensor] = {}

    def numbers(*shape: int) -> Tensor:
        wide = 0.2 if len(shape) == 1 else torch.Size(shape[1:]).numel() ** -0.5
        return torch.randn(shape, generator=generator) * wide

    def block(folder: str, name: str, entering: int, leaving: int) -> None:
        for place, size in ((1, entering), (2, leaving)):
            state[f"{folder}.{name}conv{place}.weight"] = numbers(leaving, size, 3, 3)
            norm = f"{folder}.{name}norm{place}"
            state[f"{norm}.weight"], state[f"{norm}.bias"] = numbers(leaving) + 1, numbers(leaving)
            state[f"{norm}.running_mean"], state[f"{norm}.running_var"] = numbers(leaving), numbers(leaving).abs() + 0.5
            state[f"{norm}.num_batches_tracked"] = torch.tensor(7)

    for level in (1, 2, 3, 4):
        wide = width * 2 ** (level - 1)
        block(f"encoder{level}", f"enc{level}", channels if level == 1 else wide // 2, wide)
        state[f"upconv{level}.weight"], state[f"upconv{level}.bias"] = numbers(2 * wide, wide, 2, 2), numbers(wide)
        block(f"decoder{level}", f"dec{level}", 2 * wide, wide)
    block("bottleneck", "bottleneck", 8 * width, 16 * width)
    state["conv.weight"], state["conv.bias"] = numbers(outputs, width, 1, 1), numbers(outputs)
    return state
