"""Images and maps by pixels: the channels of a pixel side by side in memory, as convolutions on the CPU want them.

torch lays images out by planes. oneDNN, which computes its convolutions, copies planes back and forth, and the
gradients of convolutions that see one channel at a time take five times as long from them (docs/log.md). The layout of
what enters the first convolution is that of all that follows; answers differ by rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor, fx, nn

Inputs = Tensor | Mapping[str, Tensor]
_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


@final
class ReadingPixels:
    """A module that is called with its maps by pixels, if it wants to and can: one answer, found with the first batch.

    A forward that takes views of maps as they lie in memory cannot.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._reads: bool | None = None

    def __call__(self, inputs: Inputs) -> Any:
        """What the module gives."""
        if self._reads is None:
            self._reads = wants_pixels(self._module, inputs)
            if self._reads:
                try:
                    return self._module(by_pixels(inputs))
                except RuntimeError:
                    self._reads = False
        return self._module(by_pixels(inputs) if self._reads else inputs)


def by_pixels(inputs: Inputs) -> Inputs:
    """Tensors (n, c, height, width) with the channels innermost in memory; all others as they are."""
    if isinstance(inputs, Tensor):
        return inputs.contiguous(memory_format=torch.channels_last) if _is_map(inputs) else inputs
    return {
        name: tensor.contiguous(memory_format=torch.channels_last) if _is_map(tensor) else tensor
        for name, tensor in inputs.items()
    }


def wants_pixels(module: nn.Module, inputs: Inputs) -> bool:
    """Whether oneDNN convolves in the module, and there are maps among its inputs."""
    tensors = [inputs] if isinstance(inputs, Tensor) else list(inputs.values())
    is_there = torch.backends.mkldnn.is_available() and all(tensor.device.type == "cpu" for tensor in tensors)
    return is_there and any(map(_is_map, tensors)) and any(map(_convolves, module.modules()))


def _is_map(tensor: Tensor) -> bool:
    return tensor.ndim == 4 and tensor.shape[1] > 1


def _convolves(part: nn.Module) -> bool:
    if isinstance(part, fx.GraphModule):
        return any(node.op == "call_function" and "conv" in str(node.target) for node in part.graph.nodes)
    return isinstance(part, _CONVOLUTIONS)
