"""A module as an exported program with tensors in and tensors out, for runtimes that are not torch's."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ._backend import CannotBuild, Forward, Inputs, Outputs, named, token_tensors

TYPED = 2  # samples that show the types of a module's outputs
_DEPENDENT = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
T = TypeVar("T")
Run = Callable[[Sequence[Tensor]], Sequence[Tensor]]


@final
class Flat(nn.Module):
    """A module that takes the tensors of its inputs, in the order of `keys`, and gives those of its outputs."""

    def __init__(self, module: nn.Module, example: Inputs) -> None:
        super().__init__()
        self.module = module
        self.keys = list(example) if isinstance(example, Mapping) else None

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The outputs' tensors, in their order."""
        inputs = tensors[0] if self.keys is None else dict(zip(self.keys, tensors, strict=True))
        return tuple(named(self.module(inputs)).values())

    def tensors(self, inputs: Inputs) -> list[Tensor]:
        """The tensors of a batch."""
        return [inputs] if isinstance(inputs, Tensor) else [inputs[key] for key in self.keys or ()]


def export(flat: Flat, example: Inputs) -> Any:
    """Images keep the example's batch size, which builds twice as fast; texts may have any number and length."""
    free = torch.export.Dim.DYNAMIC
    shapes = None
    if not isinstance(example, Tensor):
        tokens = token_tensors(example)
        shapes = (tuple({0: free, 1: free} if name in tokens else {0: free} for name in flat.keys or ()),)
    try:
        with torch.no_grad(), quiet():
            return torch.export.export(flat, tuple(flat.tensors(example)), dynamic_shapes=shapes, strict=False)
    except Exception as error:  # whatever a forward does that cannot be traced
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CannotBuild(f"torch.export cannot read it ({reason[0][:200]})") from error


def watched(run: Callable[[], T]) -> tuple[T, bool]:
    """(what it gives, whether any of its calls looks at a value that it computed), on which what follows may depend."""
    with _NumbersTaken() as numbers, _ValuesAsked() as values:
        result = run()
    return result, numbers.taken or values.asked


def is_traceable(flat: Flat, example: Inputs) -> bool:
    """Whether a module does without the values that it looks at: tried on tensors without any, in a third of a second.

    So do transformers, which ask whether a mask is true everywhere only where somebody can answer.
    """
    from torch._subclasses import FakeTensorMode

    with torch.no_grad(), quiet(), FakeTensorMode(allow_non_fake_inputs=True) as mode:
        try:
            flat(*(mode.from_tensor(tensor) for tensor in flat.tensors(example)))
        except Exception:  # a value that is looked at, or anything that only real tensors can do
            return False
    return True


@final
class _NumbersTaken(TorchFunctionMode):
    """Tensors that are read as numbers of Python or NumPy, all at once."""

    taken = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.taken |= getattr(func, "__name__", "") in ("tolist", "numpy", "__array__")
        return func(*args, **(kwargs or {}))


@final
class _ValuesAsked(TorchDispatchMode):
    """Operations whose result is a number, or has a size, that depends on values; branches and loops of torch's too."""

    asked = False
    supports_higher_order_operators = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.asked |= bool(_DEPENDENT & set(getattr(func, "tags", _DEPENDENT)))
        return func(*args, **(kwargs or {}))


def traced(flat: Flat, example: Inputs) -> Any:
    """The calls that a module makes for a batch like this."""
    with torch.no_grad(), quiet():
        return torch.jit.trace(flat, tuple(flat.tensors(example)), check_trace=False)


def forward_of(flat: Flat, run: Run, like: Outputs) -> Forward:
    """The call of a built program. like: what the module gives, whose types are kept."""
    types = {name: tensor.dtype for name, tensor in named(like).items()}

    def forward(inputs: Inputs) -> Outputs:
        results = zip(types.items(), run(flat.tensors(inputs)), strict=True)
        outputs = {name: result.to(kind) for (name, kind), result in results}
        return outputs[""] if isinstance(like, Tensor) else outputs

    return forward


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the remarks that exporters make about the code they are given; loggers are left as they were."""
    ignoring = logging.NullHandler()
    logging.root.addHandler(ignoring)  # logging.warning(), where nobody handles it, sets up a handler that stays
    logging.root.addFilter(_is_of_others)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.root.removeFilter(_is_of_others)
        logging.root.removeHandler(ignoring)


def _is_of_others(record: logging.LogRecord) -> bool:
    """Whether a message is none of an exporter's: the program's own are heard while one is at work."""
    return "openvino" not in Path(record.pathname).parts
