"""Gradients of depthwise convolutions: torch's, and neurenix' where torch has no fast kernel for them on the CPU.

    python benchmarks/depthwise_gradients.py

32 maps, as networks have them for images of 224 px and smaller ones. The columns are milliseconds, medians of ten
calls: kernel (and its steps, if of more than one) and map, by pixels (channels innermost) but for ConvNeXt's, which lie
by planes. Those of weights are taken a few columns at a time, those of maps in bf16 in fp32. `seconds` are those of all
ten calls of all of them.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from _race import race
from torch import Tensor

from neurenix.training.depthwise import maps_gradient, weight_gradient

SAMPLES, CALLS = 32, 10


@dataclass(frozen=True)
class Case:
    """of: whose gradient, "weights" or "maps". side: of a map, in pixels."""

    of: str
    kernel: int
    channels: int
    side: int
    stride: int = 1
    precision: torch.dtype = torch.float32
    by_pixels: bool = True

    def __str__(self) -> str:
        kind = "bf16 " if self.precision == torch.bfloat16 else ""
        steps = "" if self.stride == 1 else f"/{self.stride}"
        return f"{kind}{self.of} {self.kernel}x{self.kernel}{steps} of {self.channels}x{self.side}x{self.side}"

    def tensors(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Maps, weights, and the answers' gradient."""
        layout = torch.channels_last if self.by_pixels else torch.contiguous_format
        places = -(-self.side // self.stride)
        sizes = [(SAMPLES, self.channels, side, side) for side in (self.side, places)]
        maps, gradient = (
            torch.randn(size, generator=generator).to(self.precision).contiguous(memory_format=layout) for size in sizes
        )
        weights = torch.randn(self.channels, 1, self.kernel, self.kernel, generator=generator).to(self.precision)
        return maps, weights, gradient


BF16 = torch.bfloat16
CASES = (
    Case("weights", 5, 1152, 2),
    Case("weights", 5, 672, 4),
    Case("weights", 5, 1152, 7),
    Case("weights", 5, 672, 14),
    Case("weights", 5, 240, 28),
    Case("weights", 7, 384, 7, by_pixels=False),
    Case("weights", 7, 192, 28, by_pixels=False),
    Case("weights", 5, 672, 4, precision=BF16),
    Case("weights", 5, 672, 14, precision=BF16),
    Case("maps", 5, 672, 4, stride=2, precision=BF16),
    Case("maps", 3, 240, 28, stride=2, precision=BF16),
)
Gradient = Callable[[Case, Tensor, Tensor, Tensor], Tensor]


def ours(case: Case, maps: Tensor, weights: Tensor, gradient: Tensor) -> Tensor:
    stride, margins = (case.stride, case.stride), (case.kernel // 2, case.kernel // 2)
    if case.of == "maps":
        return maps_gradient(maps, weights, gradient, stride, margins)
    return weight_gradient(maps, gradient, (case.kernel, case.kernel), stride, margins)


def torchs(case: Case, maps: Tensor, weights: Tensor, gradient: Tensor) -> Tensor:
    stride, margins, of_maps = [case.stride] * 2, [case.kernel // 2] * 2, case.of == "maps"
    found = torch.ops.aten.convolution_backward(
        gradient,
        maps,
        weights,
        None,
        stride,
        margins,
        [1, 1],
        False,
        [0, 0],
        case.channels,
        [of_maps, not of_maps, False],
    )
    result: Tensor = found[0 if of_maps else 1]
    return result


def timed(compute: Gradient, seed: int) -> Mapping[str, float]:
    generator, figures, all_calls = torch.Generator().manual_seed(seed), dict[str, float](), 0.0
    for case in CASES:
        tensors = case.tensors(generator)
        found, expected = compute(case, *tensors).float(), torchs(case, *tensors).float()
        if (found - expected).abs().max() > (1e-4 if case.precision == torch.float32 else 2e-2) * expected.abs().max():
            sys.exit(f"{case}: another gradient than torch's")
        taken = []
        for _ in range(CALLS):
            started = time.perf_counter()
            compute(case, *tensors)
            taken.append(time.perf_counter() - started)
        figures[str(case)] = 1e3 * statistics.median(taken)
        all_calls += sum(taken)
    return {"seconds": all_calls, **figures}


def main() -> None:
    title = f"gradients of depthwise convolutions, {SAMPLES} maps, kernel and channels x height x width, milliseconds"
    contestants: dict[str, Callable[[int], Mapping[str, float]]] = {
        "neurenix": lambda seed: timed(ours, seed),
        "torch": lambda seed: timed(torchs, seed),
    }
    race("depthwise-gradients", title, contestants, ours="neurenix")


if __name__ == "__main__":
    main()
