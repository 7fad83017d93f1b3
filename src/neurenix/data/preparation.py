"""Raw samples become what a model reads, by the preprocessing that belongs to its weights."""

from __future__ import annotations

from typing import Any, Protocol, final, runtime_checkable

import numpy as np

from ..errors import UnreadableSampleError
from ..registry import Registry
from ._dataset import Dataset, innermost, known_targets, label_names, sample_name
from ._randomness import own_random_state

_TRIES = 20  # unreadable samples at the start of a dataset that are passed over when looking for its kind


@runtime_checkable
class Preprocess(Protocol):
    """What belongs to weights: how a raw sample becomes what the network reads.

    reads: what a raw sample is: "image", "text", "sound" or "music".
    """

    @property
    def reads(self) -> str:
        """See above."""
        ...

    def __call__(self, raw: Any) -> Any:
        """One raw sample -> a tensor, or a mapping of tensors."""
        ...

    def accepts(self, raw: Any) -> bool:
        """Whether `raw` is a raw sample; False for tensors that are ready."""
        ...

    def wrap(self, dataset: Any, training: bool) -> Dataset:
        """A dataset of ready samples over a dataset of raw ones; `training` may augment."""
        ...

    def check(self, inputs: Any) -> None:
        """Raise InputMismatchError or warn when a batch is not what the weights expect."""
        ...

    def to_json(self) -> dict[str, Any]:
        """The preprocessing as JSON values, to be saved with a model."""
        ...


PREPROCESSES: Registry[Any] = Registry("kind of preprocessing")  # kind, as in to_json -> class with from_json


class Prepared(Dataset):
    """A dataset over another one whose samples it makes ready; labels and names are those of `dataset`."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.classes = label_names(dataset)
        self.on_bad = innermost(dataset, "on_bad", "raise")

    @property
    def targets(self) -> np.ndarray | None:
        """Targets, where the dataset can tell them without reading inputs."""
        return known_targets(self.dataset)

    def __len__(self) -> int:
        return len(self.dataset)

    def sample_name(self, index: int) -> str:
        """The name that the sample has in the dataset."""
        return sample_name(self.dataset, index)


@final
class PreparedDataset(Prepared):
    """`dataset` with `preprocess` applied to each input."""

    def __init__(self, dataset: Any, preprocess: Any) -> None:
        super().__init__(dataset)
        self.preprocess = preprocess

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        raw, target = pair(self.dataset[index])
        return self.preprocess(raw), target


def prepare(dataset: Any, preprocess: Preprocess | None, training: bool) -> Any:
    """`dataset` made ready for a model: raw samples get the model's preprocessing, ready tensors stay as they are.

    The first readable sample decides. training: augment where the preprocessing has an augmentation.
    """
    if preprocess is None or not preprocess.accepts(_first_input(dataset)):
        return dataset
    return preprocess.wrap(dataset, training)


def check_inputs(inputs: Any, preprocess: Any) -> None:
    """Compare a batch's inputs with what the weights expect: certain mismatches raise, likely ones warn.

    Does nothing for a model without preprocessing of its own.
    """
    if preprocess is not None:
        preprocess.check(inputs)


def pair(sample: Any) -> tuple[Any, Any]:
    """(input, target) of a dataset's sample; a sample that is no pair is an input without target."""
    if isinstance(sample, (tuple, list)) and len(sample) == 2:
        return sample[0], sample[1]
    if isinstance(sample, (tuple, list)) and len(sample) == 1:
        return sample[0], None
    return sample, None


def _first_input(dataset: Any) -> Any:
    with own_random_state():  # a dataset's own transform may draw
        for index in range(min(len(dataset), _TRIES)):
            try:
                return pair(dataset[index])[0]
            except UnreadableSampleError:
                if innermost(dataset, "on_bad", "raise") == "raise":
                    raise
    return None
