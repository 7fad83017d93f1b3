"""What a dataset of ours offers, and the same questions asked of any map-style dataset."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import ConcatDataset, TensorDataset
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Subset as TorchSubset

from ..errors import ConfigurationError, LabelMismatchError
from ._batch import Skipped
from ._randomness import own_random_state
from .gathering import Gathered
from .label_sets import as_label_sets, encode_label_sets

OnBad = Literal["raise", "skip"]


class Dataset(TorchDataset[tuple[Any, Any]], abc.ABC):
    """A map-style dataset that knows its labels and its samples' names without reading inputs.

    `dataset[i]` is (input, target); the target is None in unlabelled data.
    classes: label names in the order of their numbers; empty when there are none.
    on_bad: what a loader does with a sample that raises UnreadableSampleError.
    in_memory: reading a sample costs next to nothing and is not random, so worker processes would only slow
        it down.
    """

    classes: list[str]
    on_bad: OnBad = "raise"
    in_memory: bool = False

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def __getitem__(self, index: int) -> tuple[Any, Any]: ...

    @property
    @abc.abstractmethod
    def targets(self) -> np.ndarray | None:
        """Targets of all samples, (n,) or (n, …); None in unlabelled data."""

    @abc.abstractmethod
    def sample_name(self, index: int) -> str:
        """How messages call a sample: its path, its row."""

    def gather(self, places: torch.Tensor) -> Gathered | None:
        """Several samples at once, where they lie in memory; None where they do not. places: (n,) int64."""
        return None


def gathered(dataset: Any, places: torch.Tensor) -> Gathered | None:
    """What collate would make of `dataset[place]` for each of the places, (n,) int64; None for data that cannot.

    Nor for a class that reads its samples in another way than the one that knows how to gather them.
    """
    if not isinstance(dataset, Dataset) or _giver(dataset, "gather") is not _giver(dataset, "__getitem__"):
        return None
    return dataset.gather(places)


def _giver(dataset: Dataset, method: str) -> type:
    return next(kind for kind in type(dataset).__mro__ if method in vars(kind))


def label_names(dataset: Any) -> list[str]:
    """Names of the classes in the order of their numbers; empty when the dataset knows none."""
    if isinstance(dataset, TorchSubset):
        return label_names(dataset.dataset)
    if isinstance(dataset, ConcatDataset):
        return _common_names([label_names(part) for part in dataset.datasets])
    names = getattr(dataset, "classes", None)
    if not isinstance(names, Sequence) or isinstance(names, str):
        return []
    # torchvision's ImageNet gives a tuple of synonyms for each class
    return [str(name[0]) if isinstance(name, tuple) else str(name) for name in names]


def all_targets(dataset: Any) -> np.ndarray:
    """Targets of all samples as an array (n,) or (n, …), without reading inputs where the dataset allows it.

    Raises ConfigurationError for unlabelled data.
    """
    known = known_targets(dataset)
    if known is None:
        with own_random_state():  # reading inputs may draw
            known = np.asarray([_number(dataset[index][1]) for index in range(len(dataset))])
    if known.dtype == object:
        raise ConfigurationError(
            f"{type(dataset).__name__} has no targets, or targets of different shapes; this needs one "
            "target per sample."
        )
    return known


def known_targets(dataset: Any) -> np.ndarray | None:
    """The targets that a dataset can tell without reading inputs; None when it cannot."""
    if isinstance(dataset, TorchSubset):
        inner = known_targets(dataset.dataset)
        return None if inner is None else inner[np.asarray(dataset.indices, dtype=np.int64)]
    if isinstance(dataset, ConcatDataset):
        parts = [known_targets(part) for part in dataset.datasets]
        return None if any(part is None for part in parts) else np.concatenate([p for p in parts if p is not None])
    if isinstance(dataset, TensorDataset):
        return np.asarray(dataset.tensors[-1])
    targets = getattr(dataset, "targets", None)
    if targets is None or len(targets) != len(dataset):
        return None
    change = getattr(dataset, "target_transform", None)  # torchvision applies it when a sample is read
    return np.asarray(targets) if change is None else np.asarray([_number(change(target)) for target in targets])


def known_lengths(dataset: Any) -> np.ndarray | None:
    """(n,) lengths that a dataset gives its samples (tokens, milliseconds); None when it gives none."""
    if isinstance(dataset, TorchSubset):
        inner = known_lengths(dataset.dataset)
        return None if inner is None else inner[np.asarray(dataset.indices, dtype=np.int64)]
    lengths = getattr(dataset, "lengths", None)
    found = None if lengths is None or callable(lengths) else np.asarray(lengths)
    return found if found is not None and found.shape == (len(dataset),) else None


def sample_name(dataset: Any, index: int) -> str:
    """How messages call a sample of any dataset: its path or row where known, else its number."""
    if isinstance(dataset, TorchSubset):
        return sample_name(dataset.dataset, int(dataset.indices[index]))
    if hasattr(dataset, "sample_name"):
        return str(dataset.sample_name(index))
    files = getattr(dataset, "samples", None) or getattr(dataset, "imgs", None)  # torchvision's DatasetFolder
    if isinstance(files, list) and len(files) == len(dataset) and isinstance(files[index], tuple):
        return str(files[index][0])
    return f"sample {index}"


def innermost(dataset: Any, attribute: str, default: Any = None) -> Any:
    """An attribute of a dataset, looked for inside torch's Subset too."""
    while isinstance(dataset, TorchSubset) and not hasattr(dataset, attribute):
        dataset = dataset.dataset
    return getattr(dataset, attribute, default)


def work(dataset: Any, inputs: Any) -> float:
    """How many samples like those of a batch's inputs a dataset makes up: texts count by their tokens."""
    lengths = innermost(dataset, "lengths")
    if lengths is None or isinstance(inputs, torch.Tensor):
        return float(len(dataset))
    longest = max((tensor.shape[1] for tensor in inputs.values() if tensor.ndim > 1), default=1)
    return len(dataset) * float(np.mean(lengths)) / max(1, longest)


def left_out(dataset: Any) -> tuple[Skipped, ...]:
    """What a dataset did not even take in (rows of a table without a target), looked for inside wrappers too."""
    while dataset is not None:
        found = getattr(dataset, "left_out", None)
        if found is not None:
            return tuple(found)
        dataset = getattr(dataset, "dataset", None)
    return ()


def is_in_memory(dataset: Any) -> bool:
    """Whether reading a sample costs next to nothing and draws nothing at random."""
    return bool(innermost(dataset, "in_memory", isinstance(dataset, TensorDataset)))


def encode_labels(values: Any, classes: Sequence[str] | None = None, *, what: str = "targets") -> tuple[Any, list[str]]:
    """(numbers, class names) of labels: names become numbers in sorted order, whole numbers and reals stay.

    values: (n,) or (n, outputs), array, tensor or list; or a list of names for each sample, which becomes a matrix
    of 0 and 1; or masks (n, height, width), a class number for each pixel.
    numbers: int64, or float32 for reals and several outputs.
    Raises LabelMismatchError for missing labels and for names or numbers outside of `classes`.
    """
    sets = as_label_sets(values)
    if sets is not None:
        return encode_label_sets(sets, classes, what)
    array = np.asarray(values.cpu() if isinstance(values, torch.Tensor) else values)
    array = array.ravel() if array.dtype.kind in "OUS" else array
    _refuse_missing(array, what)
    if array.dtype.kind in "US" or array.dtype == object:
        return _encode_names([str(value) for value in array.tolist()], classes, what)
    is_mask = array.ndim > 2 and array.dtype.kind in "iu"
    if array.dtype.kind == "f" or (array.ndim > 1 and not is_mask):
        return array.astype(np.float32), [str(name) for name in classes or ()]
    names = [str(name) for name in classes or ()]
    if names and array.size and not is_mask and not 0 <= array.min() <= array.max() < len(names):
        raise LabelMismatchError(
            f"{what} holds class numbers from {array.min()} to {array.max()}, but {len(names)} class names were given."
        )
    return array.astype(np.int64), names


def target_at(targets: np.ndarray | None, index: int) -> Any:
    """One target as a Python number, or a float32 tensor where a sample has several."""
    if targets is None:
        return None
    return torch.from_numpy(np.array(targets[index])) if targets.ndim > 1 else targets[index].item()


def check_on_bad(value: str) -> OnBad:
    """`value` when it is one of the two words; raises ConfigurationError otherwise."""
    if value not in ("raise", "skip"):
        raise ConfigurationError(f"on_bad={value!r}; possible: 'raise' (stop at a bad sample), 'skip' (leave it out).")
    return "skip" if value == "skip" else "raise"


def _common_names(names: list[list[str]]) -> list[str]:
    if any(other != names[0] for other in names):
        raise LabelMismatchError(
            f"the joined datasets name their classes differently ({names[0][:5]} and others), so class "
            "numbers would mean different things; bring them to the same classes first."
        )
    return names[0] if names else []


def _refuse_missing(array: np.ndarray, what: str) -> None:
    if array.dtype == object:
        missing = [row for row, value in enumerate(array.tolist()) if value is None or value != value]
    elif array.dtype.kind == "f":
        missing = np.flatnonzero(np.isnan(array.reshape(len(array), -1)).any(axis=1)).tolist()
    else:
        return
    if missing:
        raise LabelMismatchError(
            f"{what} has no value in {len(missing)} rows (first: {missing[:5]}); fill them or leave those rows out."
        )


def _encode_names(names: list[str], classes: Sequence[str] | None, what: str) -> tuple[np.ndarray, list[str]]:
    known = sorted(set(names)) if classes is None else [str(name) for name in classes]
    number = {name: place for place, name in enumerate(known)}
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise LabelMismatchError(
            f"{what} holds labels that are not among the classes: {unknown[:5]}; known: {known[:10]}."
        )
    return np.asarray([number[name] for name in names], dtype=np.int64), known


def _number(target: Any) -> Any:
    return target.tolist() if isinstance(target, torch.Tensor) else target
