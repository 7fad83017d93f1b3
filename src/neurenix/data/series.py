"""From a raw time series to the tensor that a network reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigurationError, InputMismatchError
from ._dataset import Dataset
from .findings import Finding, report
from .preparation import PREPROCESSES, PreparedDataset

_LEAST_STD = 1e-6


@final
@PREPROCESSES.register("series")
@dataclass(frozen=True)
class SeriesPreprocess:
    """One raw series -> {"series": (channels, length) float32}, each channel standardised.

    A raw series is an array, tensor or list (steps, channels), or (steps,) of one channel. Of longer ones the last
    `length` steps are read, as what comes next follows from them; shorter ones are filled up with the mean in front.
    mean, std: of each channel; None takes each series' own. Missing steps (NaN) become the mean.
    """

    reads: ClassVar[str] = "series"

    channels: int
    length: int
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("channels", "length"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigurationError(f"{name}={value!r}; it is a whole number, from 1.")

    def __call__(self, raw: Any) -> dict[str, Tensor]:
        """What the network reads of one raw series."""
        steps = self.steps(raw)[-self.length :]
        known = ~steps.isnan()
        if self.mean is not None and self.std is not None:
            mean, std = torch.tensor(self.mean, dtype=steps.dtype), torch.tensor(self.std, dtype=steps.dtype)
        else:
            count = known.sum(0).clamp(min=1)
            mean = steps.nan_to_num(0).sum(0) / count
            std = (torch.where(known, steps - mean, 0.0).square().sum(0) / count).sqrt()
        scaled = torch.where(known, (steps - mean) / std.clamp(min=_LEAST_STD), 0.0)
        scaled = torch.nn.functional.pad(scaled, (0, 0, self.length - len(scaled), 0))
        return {"series": scaled.T.float().contiguous()}

    def steps(self, raw: Any) -> Tensor:
        """(steps, channels) float64 of a raw series. Raises InputMismatchError for one of other channels."""
        try:
            steps = torch.as_tensor(np.asarray(raw), dtype=torch.float64)
        except (TypeError, ValueError) as error:
            raise InputMismatchError(f"a series holds numbers; this one cannot be read as such: {error}.") from error
        steps = steps[:, None] if steps.ndim == 1 else steps
        if steps.ndim != 2 or steps.shape[1] != self.channels or not len(steps):
            raise InputMismatchError(
                f"a series of shape {tuple(steps.shape)} came; this model reads (steps, {self.channels})."
            )
        return steps

    def accepts(self, raw: Any) -> bool:
        """Whether `raw` is a raw series; False for the tensors of a ready one."""
        return isinstance(raw, (np.ndarray, Tensor, list)) and np.ndim(raw) in (1, 2)

    def example(self) -> Any:
        """A raw series."""
        return np.zeros((self.length, self.channels), dtype=np.float32)

    def wrap(self, dataset: Any, training: bool) -> Dataset:
        """`dataset` of raw series as one of ready ones; training changes nothing."""
        return PreparedDataset(dataset, self)

    def check(self, inputs: Any) -> None:
        """Raise InputMismatchError when a batch is no {"series": (n, channels, length)} of finite numbers."""
        series = inputs.get("series") if isinstance(inputs, Mapping) else None
        if not isinstance(series, Tensor) or series.shape[1:] != (self.channels, self.length):
            words = (
                f"this model reads series (steps, {self.channels}), and the first batch is none of such series. Give "
                "them as arrays, and model.preprocess does the rest."
            )
            report([Finding("layout", True, words)])
        elif not bool(series.isfinite().all()):
            report([Finding("finite", True, "the first batch of series holds infinity.")])

    def to_json(self) -> dict[str, Any]:
        """The preprocessing as JSON values."""
        scaling = {
            name: None if value is None else list(value) for name, value in (("mean", self.mean), ("std", self.std))
        }
        return {"kind": "series", "channels": self.channels, "length": self.length, **scaling}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], folder: Path | None = None) -> SeriesPreprocess:
        """What to_json described. folder: where a saved model lies; series need nothing from it."""
        mean, std = (None if values[name] is None else tuple(map(float, values[name])) for name in ("mean", "std"))
        return cls(int(values["channels"]), int(values["length"]), mean, std)
