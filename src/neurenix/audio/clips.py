"""A dataset of sounds as waveforms, batched with others of similar length."""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import Any, Protocol, final

import numpy as np
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..data import Dataset, collate, innermost, known_targets, label_names, sample_name
from ..data.preparation import pair
from ..errors import TruncatedAudioWarning, UnreadableSampleError
from ._input import AudioInput


class Hearing(Protocol):
    """What a dataset of waveforms needs of a preprocessing."""

    @property
    def spec(self) -> AudioInput:
        """What the weights were trained on."""
        ...

    def __call__(self, raw: Any) -> dict[str, Tensor]:
        """One raw sound -> its waveform and mask."""
        ...

    def accepts(self, raw: Any) -> bool:
        """Whether `raw` is a sound."""
        ...


@final
class AudioDataset(Dataset):
    """`dataset` of sounds as waveforms: `dataset[i]` is ({"waveform": (t,), "attention_mask": (t,)}, target).

    `lengths` lets a loader batch clips of similar length, and `collate` fills a batch up to its own longest clip.
    """

    def __init__(self, dataset: Any, preprocess: Hearing) -> None:
        self.dataset, self.preprocess = dataset, preprocess
        self.classes, self.on_bad = label_names(dataset), innermost(dataset, "on_bad", "raise")

    @cached_property
    def lengths(self) -> np.ndarray | None:
        """(n,) samples of each clip at the model's rate; None where the dataset does not know its clips' lengths.

        dataset.lengths: in milliseconds. Clips that lose their end are counted in a TruncatedAudioWarning.
        """
        known, spec = innermost(self.dataset, "lengths"), self.preprocess.spec
        if known is None:
            return None
        samples = np.asarray(known, dtype=np.int64) * spec.sample_rate // 1000
        longest = samples.max() if spec.max_length is None else spec.max_length
        cut = int((samples > longest).sum())
        if cut:
            warnings.warn(
                f"{cut} of {len(self)} clips are longer than {longest / spec.sample_rate:g} s and are cut. Load the "
                f"model with a larger max_length (in samples at {spec.sample_rate} Hz), or cut the files.",
                TruncatedAudioWarning,
                stacklevel=4,
            )
        return np.clip(samples, min(spec.min_length, longest), longest)

    @property
    def targets(self) -> np.ndarray | None:
        """Targets, where the dataset can tell them without reading sounds."""
        return known_targets(self.dataset)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[dict[str, Tensor], Any]:
        raw, target = pair(self.dataset[index])
        if not self.preprocess.accepts(raw):
            raise UnreadableSampleError(f"{self.sample_name(index)} holds {type(raw).__name__}, not a sound.")
        try:
            return self.preprocess(raw), target
        except UnreadableSampleError as error:
            name = self.sample_name(index)
            raise UnreadableSampleError(str(error) if name in str(error) else f"{name}: {error}") from error

    def collate(self, samples: list[tuple[dict[str, Tensor], Any]]) -> tuple[dict[str, Tensor], Any]:
        """A batch (n, longest clip of it), filled up with zeros: silence, where the mask is 0."""
        _, targets = collate([(0, target) for _, target in samples])
        return {name: _padded([sample[name] for sample, _ in samples]) for name in samples[0][0]}, targets

    def sample_name(self, index: int) -> str:
        """The name that the sound has in its dataset."""
        return sample_name(self.dataset, index)


def _padded(rows: list[Tensor]) -> Tensor:
    return pad_sequence(rows, batch_first=True)
