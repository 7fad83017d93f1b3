"""Datasets whose samples lie in memory: arrays, tensors, texts, lists."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import numpy as np
import torch

from ..errors import ConfigurationError, EmptyDatasetError, UnreadableSampleError
from ._dataset import Dataset, check_on_bad, encode_labels, target_at
from .gathering import Gathered, taken, targets_taken


@final
class ArrayDataset(Dataset):
    """NumPy arrays or tensors of equal length. `dataset[i]` is (tensor, target).

    inputs: (n, …). NumPy's float64 is read as float32, the networks' own format; all else keeps its type.
    targets: (n,) class names, class numbers or reals, or (n, outputs); None for unlabelled data.
    """

    in_memory = True

    def __init__(self, inputs: Any, targets: Any = None, classes: Sequence[str] | None = None) -> None:
        self.inputs = inputs if isinstance(inputs, torch.Tensor) else np.asarray(inputs)
        if not self.inputs.shape:
            raise ConfigurationError(f"inputs is a single {type(inputs).__name__}, not an array of samples (n, …).")
        if isinstance(self.inputs, np.ndarray) and self.inputs.dtype == object:
            raise ConfigurationError(
                "inputs has samples of different shapes; make them equal, or pass a list of images."
            )
        self._targets, self.classes = _labels(targets, classes, len(self.inputs))

    @property
    def targets(self) -> np.ndarray | None:
        """Class numbers or values, one per sample."""
        return self._targets

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, Any]:
        sample = self.inputs[index]
        if not isinstance(sample, torch.Tensor):
            sample = torch.from_numpy(np.array(sample, dtype=np.float32 if sample.dtype == np.float64 else None))
        return sample, target_at(self._targets, index)

    def gather(self, places: torch.Tensor) -> Gathered | None:
        """Rows, as long as they are dense."""
        if isinstance(self.inputs, torch.Tensor) and self.inputs.layout != torch.strided:
            return None
        return taken(self.inputs, places), targets_taken(self._targets, places)

    def sample_name(self, index: int) -> str:
        """The sample's row."""
        return f"row {index}"


@final
class TextDataset(Dataset):
    """Texts, or pairs of texts, with or without targets. `dataset[i]` is (text, target).

    targets: class names, class numbers, reals, or several values per text; None for unlabelled data.
    """

    in_memory = True

    def __init__(
        self,
        texts: Sequence[str] | Sequence[tuple[str, str]],
        targets: Any = None,
        classes: Sequence[str] | None = None,
        *,
        on_bad: str = "raise",
    ) -> None:
        if isinstance(texts, str):
            raise ConfigurationError("texts is one text; pass a list of texts.")
        self.texts: list[Any] = list(texts)
        self.on_bad = check_on_bad(on_bad)
        self._targets, self.classes = _labels(targets, classes, len(self.texts))

    @property
    def targets(self) -> np.ndarray | None:
        """Class numbers or values, one per text."""
        return self._targets

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        text = self.texts[index]
        pair = isinstance(text, tuple) and len(text) == 2 and all(isinstance(part, str) for part in text)
        if not (isinstance(text, str) or pair):
            raise UnreadableSampleError(
                f"{self.sample_name(index)} holds {text!r} ({type(text).__name__}), not a text."
            )
        return text, target_at(self._targets, index)

    def sample_name(self, index: int) -> str:
        """The text's row."""
        return f"row {index}"


@final
class ListDataset(Dataset):
    """Inputs of any kind in a list (PIL images, arrays of different sizes), with or without targets.

    targets: as those of a TextDataset, or a mapping for each input, e.g. {"boxes": (k, 4), "labels": (k,)}.
    """

    def __init__(
        self,
        inputs: Sequence[Any],
        targets: Any = None,
        classes: Sequence[str] | None = None,
        *,
        transform: Callable[[Any], Any] | None = None,
        on_bad: str = "raise",
    ) -> None:
        self.inputs = list(inputs)
        self.transform = transform
        self.on_bad = check_on_bad(on_bad)
        self._mappings = list(targets) if _are_mappings(targets) else None
        self._targets, self.classes = _labels(None if self._mappings else targets, classes, len(self.inputs))

    @property
    def targets(self) -> np.ndarray | None:
        """Class numbers or values, one per input; None where they are mappings."""
        return self._targets

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        sample = self.inputs[index]
        target = target_at(self._targets, index) if self._mappings is None else self._mappings[index]
        return sample if self.transform is None else self.transform(sample), target

    def sample_name(self, index: int) -> str:
        """The input's place in the list."""
        return f"sample {index}"


def _are_mappings(targets: Any) -> bool:
    return isinstance(targets, Sequence) and bool(targets) and all(isinstance(target, Mapping) for target in targets)


def _labels(targets: Any, classes: Sequence[str] | None, count: int) -> tuple[np.ndarray | None, list[str]]:
    if count == 0:
        raise EmptyDatasetError("the dataset has no samples; at least one is needed.")
    if targets is None:
        return None, [str(name) for name in classes or ()]
    if len(targets) != count:
        raise ConfigurationError(f"{count} inputs and {len(targets)} targets; give one target per input.")
    return encode_labels(targets, classes)
