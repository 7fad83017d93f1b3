"""From a MIDI file to the event numbers that weights expect."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, final

import numpy
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..data import PREPROCESSES, Dataset, Finding, collate, report, sample_name
from ..data._dataset import known_targets
from ..data.preparation import Prepared, pair
from ..errors import ConfigurationError, InputMismatchWarning, UnreadableSampleError
from .events import EventVocabulary, vocabulary_of_size
from .midi import MidiSource, name_of, read_midi, write_midi

_SUFFIXES = (".mid", ".midi")


@final
@PREPROCESSES.register("midi")
class MidiPreprocess:
    """One MIDI file, its path or its content, -> {"input_ids": (events,), "attention_mask": (events,)} int64.

    vocabulary: the numbers of events; where it has a start, that stands first.
    max_length: longest sequence, the start included; the end of longer pieces is cut off.
    sustain: see read_midi.
    """

    reads: ClassVar[str] = "music"

    def __init__(self, vocabulary: EventVocabulary, max_length: int, sustain: bool = True) -> None:
        if max_length < 2:
            raise ConfigurationError(f"max_length={max_length}; it is a number of events, at least 2.")
        self.vocabulary, self.max_length, self.sustain = vocabulary, max_length, sustain

    def __call__(self, raw: MidiSource) -> dict[str, Tensor]:
        """The events of one piece."""
        return with_mask(torch.tensor(self.encode(raw)[: self.max_length], dtype=torch.int64))

    def encode(self, raw: MidiSource) -> list[int]:
        """All events of one piece. Raises UnreadableSampleError for no MIDI file, or one without notes."""
        events = self.vocabulary.encode(read_midi(raw, sustain=self.sustain))
        if not events:
            raise UnreadableSampleError(f"{name_of(raw)} holds no notes in the range of this vocabulary.")
        return events if self.vocabulary.start is None else [self.vocabulary.start, *events]

    def to_midi(self, events: Sequence[int] | Tensor) -> bytes:
        """The content of a MIDI file with the music of some events, (events,)."""
        numbers = events.tolist() if isinstance(events, Tensor) else list(events)
        return write_midi(self.vocabulary.decode(numbers))

    def accepts(self, raw: Any) -> bool:
        """Whether `raw` is the content of a MIDI file, or a path that ends in .mid or .midi."""
        if isinstance(raw, bytes):
            return raw.startswith(b"MThd")
        return isinstance(raw, (str, os.PathLike)) and Path(raw).suffix.lower() in _SUFFIXES

    def wrap(self, dataset: Any, training: bool) -> Dataset:
        """`dataset` of MIDI files, read once; training changes nothing."""
        return MidiDataset(dataset, self)

    def check(self, inputs: Any) -> None:
        """Raise InputMismatchError when a batch holds unknown events, or more than max_length of them."""
        report(list(_findings(inputs, self.vocabulary.size, self.max_length)))

    def to_json(self) -> dict[str, Any]:
        """The preprocessing as JSON values."""
        return {
            "kind": "midi",
            "vocabulary": self.vocabulary.size,
            "max_length": self.max_length,
            "sustain": self.sustain,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any], folder: Path) -> MidiPreprocess:
        """What to_json described; nothing of it lies in the folder."""
        return cls(vocabulary_of_size(int(values["vocabulary"])), int(values["max_length"]), bool(values["sustain"]))


@final
class MidiDataset(Prepared):
    """`dataset` of MIDI files as event numbers. `dataset[i]` is ({"input_ids": (t,), "attention_mask": (t,)}, target).

    Every file is read once, here. `collate` pads a batch to its own longest piece.
    lengths: (n,) events of each piece.
    """

    in_memory = True

    def __init__(self, dataset: Any, preprocess: MidiPreprocess) -> None:
        super().__init__(dataset)
        self.preprocess = preprocess
        self._bad: dict[int, str] = {}
        self._targets: list[Any] = []
        self._pieces = [self._read(index) for index in range(len(dataset))]
        self.lengths = numpy.asarray([len(piece) for piece in self._pieces], dtype=numpy.int64)

    def _read(self, index: int) -> Tensor:
        """The events of one piece; none where it cannot be read and may be skipped."""
        try:
            raw, target = pair(self.dataset[index])
            if not self.preprocess.accepts(raw):
                raise UnreadableSampleError(f"{self.sample_name(index)} is no MIDI file but {type(raw).__name__}.")
            events = self.preprocess.encode(raw)
        except UnreadableSampleError as error:
            if self.on_bad == "raise":
                raise
            self._bad[index] = str(error)
            events, target = [], None
        self._targets.append(target)
        if len(events) > self.preprocess.max_length:
            warnings.warn(
                f"{self.sample_name(index)} has {len(events)} events, and the model reads the first "
                f"{self.preprocess.max_length}; cut long pieces into several where all of them matters.",
                InputMismatchWarning,
                stacklevel=5,
            )
        return torch.tensor(events[: self.preprocess.max_length], dtype=torch.int64)

    @property
    def targets(self) -> numpy.ndarray | None:
        """Class numbers or values, one per piece; None where a piece has none."""
        known = known_targets(self.dataset)
        if known is None and self._targets and not any(target is None for target in self._targets):
            return numpy.asarray(self._targets)
        return known

    def __getitem__(self, index: int) -> tuple[dict[str, Tensor], Any]:
        if index in self._bad:
            raise UnreadableSampleError(self._bad[index])
        return with_mask(self._pieces[index]), self._targets[index]

    def collate(self, samples: list[tuple[dict[str, Tensor], Any]]) -> tuple[dict[str, Tensor], Any]:
        """A batch (n, longest piece of it): input_ids filled up with the vocabulary's pad, the mask with 0."""
        _, targets = collate([(0, target) for _, target in samples])
        fill = {"input_ids": self.preprocess.vocabulary.pad, "attention_mask": 0}
        inputs = {
            name: pad_sequence([sample[name] for sample, _ in samples], batch_first=True, padding_value=value)
            for name, value in fill.items()
        }
        return inputs, targets

    def sample_name(self, index: int) -> str:
        """The name that the piece has in its dataset."""
        return sample_name(self.dataset, index)


def with_mask(events: Tensor) -> dict[str, Tensor]:
    """Event numbers, all of which are read, as a model takes them."""
    return {"input_ids": events, "attention_mask": torch.ones_like(events)}


def _findings(inputs: Any, vocabulary_size: int, max_length: int) -> list[Finding]:
    """What does not fit in a batch of events; empty when all is well."""
    ids = inputs.get("input_ids") if isinstance(inputs, Mapping) else None
    if not isinstance(ids, Tensor) or ids.ndim != 2 or ids.is_floating_point():
        words = (
            "music has to come as {'input_ids': (n, events), 'attention_mask': (n, events)} of whole numbers; pass "
            "MIDI files, or what model.preprocess makes of them."
        )
        return [Finding("layout", True, words)]
    found = []
    if not 0 <= int(ids.min()) <= int(ids.max()) < vocabulary_size:
        words = f"events go from {int(ids.min())} to {int(ids.max())}, and the model knows {vocabulary_size} of them."
        found.append(Finding("vocabulary", True, words))
    if ids.shape[1] > max_length:
        words = f"the batch has {ids.shape[1]} events per piece, and the model reads {max_length}; cut the pieces."
        found.append(Finding("length", True, words))
    return found
