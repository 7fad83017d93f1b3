"""The gradient of depthwise convolutions' weights: torch's, and neurenix' a few columns of the kernel at a time.

    python benchmarks/depthwise_gradients.py

32 maps in fp32, as networks have them for images of 224 px and smaller ones. The columns are milliseconds, medians of
ten calls: kernel and map, by pixels (channels innermost) but for ConvNeXt's, which lie by planes. `seconds` are those
of all ten calls of all of them.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping

import torch
from _race import race
from torch import Tensor

from neurenix.training.depthwise import weight_gradient

CASES = (  # kernel, channels, side of the map, by pixels
    (5, 1152, 2, True),
    (5, 672, 4, True),
    (5, 1152, 7, True),
    (5, 672, 14, True),
    (5, 240, 28, True),
    (7, 384, 7, False),
    (7, 192, 28, False),
)
SAMPLES, CALLS = 32, 10
Gradient = Callable[[Tensor, Tensor, int], Tensor]


def ours(maps: Tensor, gradient: Tensor, kernel: int) -> Tensor:
    return weight_gradient(maps, gradient, (kernel, kernel), (1, 1), (kernel // 2, kernel // 2))


def torchs(maps: Tensor, gradient: Tensor, kernel: int) -> Tensor:
    channels, margin = maps.shape[1], [kernel // 2] * 2
    weights = maps.new_empty(channels, 1, kernel, kernel)
    found: Tensor = torch.ops.aten.convolution_backward(
        gradient, maps, weights, None, [1, 1], margin, [1, 1], False, [0, 0], channels, [False, True, False]
    )[1]
    return found


def timed(compute: Gradient, seed: int) -> Mapping[str, float]:
    generator, figures, all_calls = torch.Generator().manual_seed(seed), dict[str, float](), 0.0
    for kernel, channels, side, by_pixels in CASES:
        layout = torch.channels_last if by_pixels else torch.contiguous_format
        maps, gradient = (
            torch.randn(SAMPLES, channels, side, side, generator=generator).contiguous(memory_format=layout)
            for _ in range(2)
        )
        found, expected = compute(maps, gradient, kernel), torchs(maps, gradient, kernel)
        if (found - expected).abs().max() > 1e-4 * expected.abs().max():
            sys.exit(f"{kernel} x {kernel}, {channels} maps of {side} x {side}: another gradient than torch's")
        taken = []
        for _ in range(CALLS):
            started = time.perf_counter()
            compute(maps, gradient, kernel)
            taken.append(time.perf_counter() - started)
        figures[f"{kernel}x{kernel} of {channels}x{side}x{side}"] = 1e3 * statistics.median(taken)
        all_calls += sum(taken)
    return {"seconds": all_calls, **figures}


def main() -> None:
    title = f"gradients of depthwise weights, {SAMPLES} maps, kernel and channels x height x width, milliseconds"
    contestants: dict[str, Callable[[int], Mapping[str, float]]] = {
        "neurenix": lambda seed: timed(ours, seed),
        "torch": lambda seed: timed(torchs, seed),
    }
    race("depthwise-gradients", title, contestants, ours="neurenix")


if __name__ == "__main__":
    main()
