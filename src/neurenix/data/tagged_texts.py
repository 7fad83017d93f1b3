"""Texts with a tag for each word, and the targets that a network's tokens get from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from ..errors import EmptyDatasetError, LabelMismatchError
from ._dataset import Dataset, label_names
from .preparation import pair
from .written_targets import SequenceTargets

NO_TAG = -100  # a token without a tag: special ones, later parts of a word
WordPlaces = Callable[[Sequence[str]], list[list[int]]]


@final
class TaggedTexts(Dataset):
    """`dataset[i]` is (text, {"labels": (words,) int64}); words are what blanks separate.

    texts: strings, or lists of words, which are joined by blanks. tags: for each text a list with one for each word,
    names or numbers from 0 on; a number below 0 is no tag. classes: names of the tags in order; None sorts those there
    are.
    Raises LabelMismatchError for a text with more or fewer tags than words, and for tags that `classes` lacks.
    """

    in_memory = True

    def __init__(
        self,
        texts: Sequence[str | Sequence[str]],
        tags: Sequence[Sequence[str | int]],
        classes: Sequence[str] | None = None,
    ) -> None:
        self.texts = [text if isinstance(text, str) else " ".join(text) for text in texts]
        if not self.texts:
            raise EmptyDatasetError("no texts came; give at least one.")
        if len(self.texts) != len(tags):
            raise LabelMismatchError(f"{len(self.texts)} texts came with {len(tags)} lists of tags; give one for each.")
        for place, (text, own) in enumerate(zip(self.texts, tags, strict=True)):
            if len(text.split()) != len(own):
                raise LabelMismatchError(
                    f"text {place} has {len(text.split())} words and {len(own)} tags; give one for each: {text[:60]!r}."
                )
        named = any(isinstance(tag, str) for own in tags for tag in own)
        self.classes = list(classes or (sorted({str(tag) for own in tags for tag in own}) if named else []))
        self.tags = [self._numbers(own) if named else np.asarray(own, dtype=np.int64) for own in tags]

    @property
    def targets(self) -> None:
        """None: they are not of one length."""
        return None

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> tuple[str, dict[str, Tensor]]:
        return self.texts[index], {"labels": torch.from_numpy(self.tags[index])}

    def sample_name(self, index: int) -> str:
        """Its place and how it begins."""
        return f"text {index} ({self.texts[index][:40]!r})"

    def _numbers(self, tags: Sequence[str | int]) -> np.ndarray:
        strangers = sorted({str(tag) for tag in tags} - set(self.classes))
        if strangers:
            raise LabelMismatchError(f"tags {strangers[:5]} are not among the classes {self.classes[:12]}.")
        return np.asarray([self.classes.index(str(tag)) for tag in tags], dtype=np.int64)


def has_tagged_words(dataset: Any) -> bool:
    """Whether the samples are texts with tags, those of TaggedTexts or of a part of them."""
    text, target = pair(dataset[0]) if len(dataset) else (None, None)
    return isinstance(text, str) and isinstance(target, Mapping) and "labels" in target


def texts_of(dataset: Any) -> list[str]:
    """The texts alone."""
    return [pair(dataset[index])[0] for index in range(len(dataset))]


@final
class TokenTargets(SequenceTargets):
    """The tags of words as those of tokens: the first token of a word gets its tag, all others NO_TAG.

    dataset: of tokens, made from tagged texts. places: texts -> for each word its first token, -1 where it was cut.
    """

    def __init__(self, dataset: Any, places: WordPlaces) -> None:
        super().__init__(dataset)
        self.classes = label_names(dataset)
        self._places = places(texts_of(dataset.dataset))

    def __getitem__(self, index: int) -> tuple[Any, Tensor]:
        inputs, target = pair(self.dataset[index])
        tags = torch.full_like(inputs["input_ids"], NO_TAG)
        places, labels = torch.tensor(self._places[index], dtype=torch.int64), target["labels"]
        tags[places[places >= 0]] = labels[places >= 0]
        return inputs, tags
