"""One process or several: `accelerate launch` starts them, this hides the difference from the loop."""

from __future__ import annotations

import atexit
import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast, final

import torch
from torch import Tensor, nn

from ..data import Batch, DataLoader
from ..errors import ConfigurationError, ProcessLostError, RunError

Value = TypeVar("Value")
_LOST = ("Connection closed by peer", "Connection reset", "Broken pipe", "gloo", "NCCL", "Timed out", "timed out")


@final
class Processes:
    """The processes of this run as accelerate sees them; a single one unless `accelerate launch` started more."""

    def __init__(self, device: torch.device) -> None:
        from accelerate import Accelerator

        self._accelerator = Accelerator(cpu=device.type == "cpu")
        self.count = self._accelerator.num_processes
        if self.count > 1:
            _leave_at_exit()
        self.rank = self._accelerator.process_index
        self.is_main = self._accelerator.is_main_process
        # A single process stays on the device that the model was loaded on; several get theirs from accelerate.
        self.device = device if self.count == 1 else self._accelerator.device
        self._wrapped: nn.Module | None = None

    def wrap(self, model: nn.Module) -> None:
        """Prepare a model for gradients that are averaged over the processes; anew after every change of freezing."""
        model.to(self.device)
        self._wrapped = model if self.count == 1 else self._accelerator.prepare_model(model)

    def wrapped(self, model: nn.Module) -> nn.Module:
        """The model to call in training."""
        return self._wrapped if self._wrapped is not None and model.training else model

    def local_gradients(self, model: nn.Module, *, last: bool) -> contextlib.AbstractContextManager[Any]:
        """Inside, gradients stay in this process, except for the last batch of an accumulation window."""
        if self.count == 1 or last or self._wrapped is None:
            return contextlib.nullcontext()
        return self._accelerator.no_sync(self._wrapped)

    def epoch(self, loader: DataLoader, epoch: int, start: int = 0) -> Iterator[Batch]:
        """This process's batches of one epoch, without the first `start` of its plan."""
        return loader.batches(epoch, start, rank=self.rank, world_size=self.count)

    def batches(self, loader: DataLoader) -> int:
        """Number of batches that each process sees in an epoch."""
        return -(-len(loader) // self.count)

    def gathered(self, outputs: Any, targets: Any) -> tuple[Any, Any]:
        """Outputs and targets of all processes, in every one; batches may differ in size.

        Raises ConfigurationError for what is no tensor: of boxes and the like one process has to see all.
        """
        if self.count == 1:
            return outputs, targets
        if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
            raise ConfigurationError("metrics of boxes and masks are computed by one process; start one alone.")
        from accelerate.utils import gather_object

        parts = gather_object([(outputs.cpu(), targets.cpu())])
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; all get the same answer."""
        return flag if self.count == 1 else bool(self.summed(torch.tensor(float(flag), device=self.device)) > 0)

    def total_samples(self, window: Sequence[Batch]) -> int:
        """Samples of a step over all processes, whose shares may differ by one."""
        own = sum(batch.counted for batch in window)
        return own if self.count == 1 else int(self.summed(torch.tensor(float(own), device=self.device)))

    def summed(self, values: Tensor) -> Tensor:
        """The sum over all processes, in every one."""
        return values if self.count == 1 else self._accelerator.reduce(values, reduction="sum")

    def from_main(self, make: Callable[[], Value]) -> Value:
        """What `make` gives in the main process, in every process; an error there is raised everywhere."""
        if self.count == 1:
            return make()
        from accelerate.utils import broadcast_object_list

        answer: list[Any] = [None, None]
        if self.is_main:
            try:
                answer[0] = make()
            except BaseException as error:
                broadcast_object_list([None, f"{type(error).__name__}: {error}"])
                raise
        broadcast_object_list(answer)
        if answer[1] is not None:
            raise RunError(f"the main process stopped: {answer[1]}")
        return cast(Value, answer[0])

    def explain(self, error: Exception) -> None:
        """Raise ProcessLostError where an error of the communication means that another process is gone."""
        if self.count > 1 and any(sign in str(error) for sign in _LOST):
            raise ProcessLostError(
                f"process {self.rank} of {self.count} lost contact with another one, which ended or hangs "
                f"({str(error).splitlines()[0][:200]}). Look at its output; started again, the same call goes on from "
                "the last checkpoint."
            ) from error

    def mean(self, total: Tensor, samples: int) -> float:
        """Sum of all processes' totals over the sum of their samples."""
        both = torch.stack([total.float(), torch.tensor(float(samples), device=total.device)])
        if self.count > 1:
            both = self._accelerator.reduce(both, reduction="sum")
        return float(both[0] / both[1].clamp(min=1))

    @contextlib.contextmanager
    def own_random_state(self) -> Iterator[None]:
        """Randomness inside the block (dropout, mixup) leaves the caller's generators as they were."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            yield

    def seed(self, seed: int) -> None:
        """Make this step's randomness a function of `seed` and of the process; only inside own_random_state."""
        own = (seed + self.rank) % 2**63
        # not torch.manual_seed, which formats a traceback for each kind of device that has not been used yet
        torch.default_generator.manual_seed(own)
        if self.device.type != "cpu":
            torch.get_device_module(self.device).manual_seed(own)


@functools.cache
def _leave_at_exit() -> None:
    """Leave the group before the interpreter ends: its threads, met at work by the end, abort the process."""
    atexit.register(_leave)


def _leave() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
