"""Questions whose answers stand in a text, and which tokens that is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from torch import Tensor

from ..errors import EmptyDatasetError, LabelMismatchError
from ._dataset import Dataset
from .preparation import pair
from .written_targets import SequenceTargets

NO_SPAN = -1  # first and last token of an answer that was cut off
Pair = tuple[str, str]
SpanPlaces = Callable[[Sequence[Pair], Sequence[tuple[int, int]]], list[tuple[int, int]]]


@final
class AnsweredTexts(Dataset):
    """`dataset[i]` is ((question, text), {"letters": (2,) int64}): an answer's letters, from start to before end.

    questions, texts, answers: one for each sample. starts: where in its text each answer begins, as SQuAD states it;
    None takes the first place.
    Raises LabelMismatchError for an answer that does not stand in its text there.
    """

    in_memory = True

    def __init__(
        self,
        questions: Sequence[str],
        texts: Sequence[str],
        answers: Sequence[str],
        starts: Sequence[int] | None = None,
    ) -> None:
        if not len(questions):
            raise EmptyDatasetError("no questions came; give at least one.")
        if not len(questions) == len(texts) == len(answers) == len(starts if starts is not None else answers):
            raise LabelMismatchError(
                f"{len(questions)} questions, {len(texts)} texts and {len(answers)} answers came; give one of each for "
                "each sample."
            )
        self.pairs: list[Pair] = list(zip(questions, texts, strict=True))
        self.answers = list(answers)
        places = [text.find(answer) for text, answer in zip(texts, answers, strict=True)] if starts is None else starts
        for number, (text, answer, start) in enumerate(zip(texts, answers, places, strict=True)):
            if not answer or start < 0 or text[start : start + len(answer)] != answer:
                raise LabelMismatchError(
                    f"sample {number}: the answer {answer[:40]!r} does not stand in its text at {start}; answers are "
                    "parts of the text, letter by letter."
                )
        self.letters = [(start, start + len(answer)) for start, answer in zip(places, answers, strict=True)]

    @property
    def targets(self) -> None:
        """None: they are no classes."""
        return None

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Pair, dict[str, Tensor]]:
        return self.pairs[index], {"letters": torch.tensor(self.letters[index])}

    def sample_name(self, index: int) -> str:
        """Its place and its question."""
        return f"question {index} ({self.pairs[index][0][:40]!r})"


def has_answers(dataset: Any) -> bool:
    """Whether the samples are those of AnsweredTexts or of a part of them."""
    target = pair(dataset[0])[1] if len(dataset) else None
    return isinstance(target, dict) and "letters" in target


@final
class SpanTargets(SequenceTargets):
    """The letters of answers as tokens: (2,) int64, the first and the last one; NO_SPAN where they were cut off.

    dataset: of tokens, made from answered texts. places: pairs of texts and letters of the second ones -> tokens.
    """

    def __init__(self, dataset: Any, places: SpanPlaces) -> None:
        super().__init__(dataset)
        samples = [pair(dataset.dataset[index]) for index in range(len(dataset.dataset))]
        letters = [tuple(target["letters"].tolist()) for _, target in samples]
        self._spans = torch.tensor(places([texts for texts, _ in samples], letters))

    def __getitem__(self, index: int) -> tuple[Any, Tensor]:
        return pair(self.dataset[index])[0], self._spans[index]
