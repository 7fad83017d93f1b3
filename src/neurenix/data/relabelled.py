"""The same samples under the class numbers of another list of names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import numpy as np
import torch

from ..errors import LabelMismatchError
from ._dataset import Dataset, gathered, innermost, is_in_memory, known_lengths, known_targets, label_names, sample_name
from .gathering import Gathered
from .preparation import pair


@final
class Relabelled(Dataset):
    """`dataset` with its classes numbered as in `classes`, by name; samples, lengths and file names are the same.

    Class numbers are renumbered, of boxes and of pixels too; of label matrices (n, labels) the columns are put in their
    places, and labels that the dataset does not know are 0. Raises LabelMismatchError for a class of the dataset that
    `classes` lacks.
    """

    def __init__(self, dataset: Any, classes: Sequence[str]) -> None:
        self.dataset, self.classes = dataset, [str(name) for name in classes]
        names = label_names(dataset)
        strangers = [name for name in names if name not in self.classes]
        if strangers:
            raise LabelMismatchError(
                f"{_listed(strangers)} {'was' if len(strangers) == 1 else 'were'} not in training; the model knows "
                f"{_listed(self.classes)}. Leave these samples out, or tune a head that has these classes."
            )
        self._places = np.asarray([self.classes.index(name) for name in names], dtype=np.int64)
        self.on_bad = innermost(dataset, "on_bad", "raise")
        self.in_memory = is_in_memory(dataset)

    @property
    def targets(self) -> np.ndarray | None:
        """Renumbered targets; None when the dataset cannot tell them without reading inputs."""
        known = known_targets(self.dataset)
        return None if known is None else self._renumbered(known)

    @property
    def lengths(self) -> np.ndarray | None:
        """Length of each sample (tokens, milliseconds), where the dataset knows it."""
        return known_lengths(self.dataset)

    @property
    def collate(self) -> Callable[[list[Any]], tuple[Any, Any]] | None:
        """The dataset's own way of making a batch."""
        own: Callable[[list[Any]], tuple[Any, Any]] | None = innermost(self.dataset, "collate")
        return own

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        raw, target = pair(self.dataset[index])
        if target is None:
            return raw, None
        if isinstance(target, Mapping):
            return raw, {**target, "labels": torch.from_numpy(self._numbers(np.asarray(target["labels"])))}
        number = self._renumbered(np.asarray(target)[None])[0]
        return raw, int(number) if number.ndim == 0 else torch.from_numpy(number)

    def gather(self, places: torch.Tensor) -> Gathered | None:
        """As the dataset gathers them, renumbered."""
        found = gathered(self.dataset, places)
        if found is None or found[1] is None:
            return found
        return found[0], torch.from_numpy(self._renumbered(found[1].numpy()))

    def sample_name(self, index: int) -> str:
        """The name that the sample has in the dataset."""
        return sample_name(self.dataset, index)

    def _renumbered(self, targets: np.ndarray) -> np.ndarray:
        """(n,) class numbers, (n, height, width) of pixels, or (n, labels) of 0 and 1."""
        if targets.ndim == 1:
            return self._places[targets]
        if targets.ndim > 2:
            return self._numbers(targets)
        matrix = np.zeros((len(targets), len(self.classes)), dtype=targets.dtype)
        matrix[:, self._places] = targets
        return matrix

    def _numbers(self, targets: np.ndarray) -> np.ndarray:
        """Class numbers among which some are none of a class: padding, pixels that count for nothing."""
        known = (targets >= 0) & (targets < len(self._places))
        return np.where(known, self._places[np.where(known, targets, 0)], targets)


def relabelled(dataset: Any, classes: Sequence[str]) -> Any:
    """`dataset` with its classes numbered as in `classes`; itself where they are, or where it names none."""
    names = label_names(dataset)
    return dataset if not names or names == [str(name) for name in classes] else Relabelled(dataset, classes)


def _listed(names: Sequence[str], shown: int = 8) -> str:
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")
