"""Work counted, in operations and in bytes: the same answer in every run, unlike a stopwatch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Per second, roughly, by a small one of its kind with a network of many small layers. Not measured, so that what
# depends on it is the same in every run.
_PACES = {"cpu": 4e10, "cuda": 1e13}
# Operations in the time that one byte takes to be written: 5 to 14 as EfficientNet-Lite0 at 64 and 224 pixels has it.
# Without it the wide, shallow maps of first layers look two or three times too cheap.
_PER_BYTE = 10.0


def pace(device: torch.device) -> float:
    """Floating point operations per second."""
    return _PACES.get(device.type, _PACES["cpu"])


@final
@dataclass(frozen=True, kw_only=True)
class Work:
    """operations: floating point operations as torch counts them, those of matrix products and convolutions.

    convolutions: those of convolutions. written: bytes of what all operations give, views left out.
    """

    operations: float
    convolutions: float
    written: float

    def seconds(self, device: torch.device) -> float:
        """Roughly, on a small device with eager torch."""
        return (self.operations + _PER_BYTE * self.written) / pace(device)


def counted(forward: Callable[[], Any]) -> Work:
    """What a call does, without gradients."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, _Written() as written, torch.no_grad():
        forward()
    counts = counter.get_flop_counts().get("Global", {})
    convolutions = sum(count for operation, count in counts.items() if "conv" in str(operation))
    return Work(
        operations=float(counter.get_total_flops()), convolutions=float(convolutions), written=float(written.size)
    )


class _Written(TorchDispatchMode):
    """Counts the bytes that operations give."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.size += sum(leaf.nbytes for leaf in tree_leaves(found) if isinstance(leaf, torch.Tensor))
        return found
