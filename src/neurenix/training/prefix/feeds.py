"""Where a pass over the data gets its batches from, and which module it calls with them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, final

from torch import Tensor, nn

from ...backends import check_backend
from ...data import Batch, DataLoader
from ...errors import ConfigurationError
from ..processes import Processes
from .store import STORAGE

USES = ("auto", "always", "never")


class Feed(Protocol):
    """module: to be called with a batch's inputs, as soon as the first batch has been drawn."""

    @property
    def module(self) -> nn.Module:
        """The model, or the part of it that reads these batches."""
        ...

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """This process's batches of an epoch, without the first `start`."""
        ...

    def whole(self, batch: Batch, epoch: int) -> Batch:
        """A batch as the whole model reads it."""
        ...


@final
class OrdinaryFeed:
    """Batches as the loader gives them, for the whole model."""

    def __init__(self, module: nn.Module, loader: DataLoader, processes: Processes) -> None:
        self.module = module
        self._loader, self._processes = loader, processes

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The loader's batches."""
        return self._processes.epoch(self._loader, epoch, start)

    def whole(self, batch: Batch, epoch: int) -> Batch:
        """The same."""
        return batch


@final
@dataclass(frozen=True)
class Features:
    """What enters the head, for a whole dataset. features: (n, d). targets: (n, …). indices: (n,) samples' places.

    drew: see Batch.
    """

    features: Tensor
    targets: Tensor
    indices: Tensor
    drew: bool = False


@dataclass(frozen=True, kw_only=True)
class ReuseOptions:
    """use: "auto" where it pays, "always" where it can be, "never". storage: a key of STORAGE.

    backend: what runs the frozen layers: "auto", "eager" or a key of neurenix.backends.BACKENDS.
    memory: bytes that rows may take in main memory; None for a quarter of what is free.
    keep: leave on disk what the frozen layers give, for later runs, and take what earlier ones left.
    """

    use: str = "auto"
    storage: str = "auto"
    backend: str = "auto"
    memory: int | None = None
    keep: bool = False

    def __post_init__(self) -> None:
        if self.use not in USES:
            raise ConfigurationError(f"frozen_prefix={self.use!r}; possible: {', '.join(USES)}.")
        if self.storage not in STORAGE:
            raise ConfigurationError(f"prefix_storage={self.storage!r}; possible: {', '.join(STORAGE)}.")
        object.__setattr__(self, "backend", check_backend(self.backend))
