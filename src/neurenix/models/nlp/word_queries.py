"""Which words are alike: questions that a model of word vectors answers without any training."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ...errors import ConfigurationError, UnknownNameError
from ...text import WordPreprocess
from .._pretrained_model import PretrainedModel
from ._word_vectors import WordVectors

_WORDS = 4096  # whose vectors are computed at once
_NEIGHBOURS = 2000  # known words among which the nearest spellings of an unknown one are sought


@torch.no_grad()
def vector(model: PretrainedModel, word: str) -> Tensor:
    """The vector of one word, (d,). Raises UnknownNameError for a word without a vector."""
    return _vectors(model, [_known(model, word)])[0]


def similarity(model: PretrainedModel, first: str, second: str) -> float:
    """Cosine of the angle between the vectors of two words, in [-1, 1]."""
    return float(normalize(vector(model, first), dim=0) @ normalize(vector(model, second), dim=0))


@torch.no_grad()
def most_similar(
    model: PretrainedModel, positive: Sequence[str] | str, negative: Sequence[str] | str = (), count: int = 10
) -> list[tuple[str, float]]:
    """The words nearest to what `positive` says without what `negative` says, the nearest first, with their cosines.

    king and woman without man: the mean of the vectors, each of length 1, those of `negative` with a minus sign; the
    words of the question are left out of the answer (Mikolov et al., Linguistic Regularities in Continuous Space Word
    Representations, NAACL 2013, section 5).
    """
    plus = [_known(model, word) for word in _listed(positive)]
    minus = [_known(model, word) for word in _listed(negative)]
    if not plus and not minus:
        raise ConfigurationError("most_similar needs a word: most_similar(model, ['king', 'woman'], ['man']).")
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ConfigurationError(f"count={count!r}; it is a number of words, at least 1.")
    signs = torch.tensor([1.0] * len(plus) + [-1.0] * len(minus))
    units = normalize(_vectors(model, [*plus, *minus]), dim=1)
    wanted = normalize((signs.to(units)[:, None] * units).mean(0), dim=0)
    words, cosines = _preprocess(model).vocabulary, _cosines(model, wanted)
    asked = [words.number[word] for word in (*plus, *minus) if word in words.number]
    cosines[asked] = -torch.inf
    best = cosines.topk(min(count, len(words) - len(set(asked))))
    return [(words.words[row], value) for value, row in zip(best.values.tolist(), best.indices.tolist(), strict=True)]


def _cosines(model: PretrainedModel, wanted: Tensor) -> Tensor:
    """Cosines between a vector of length 1 and those of all words, (words,)."""
    words = _preprocess(model).vocabulary.words
    blocks = (words[start : start + _WORDS] for start in range(0, len(words), _WORDS))
    return torch.cat([normalize(_vectors(model, block), dim=1) @ wanted for block in blocks])


def _vectors(model: PretrainedModel, words: Sequence[str]) -> Tensor:
    """(words, d)"""
    rows = torch.from_numpy(_preprocess(model).bags(words))[None]
    return model.features({"input_ids": rows.to(next(model.trunk.parameters()).device)})[0]


def _known(model: PretrainedModel, word: str) -> str:
    """The word as the vocabulary writes it, or as it came where its n-grams have vectors."""
    preprocess = _preprocess(model)
    if not isinstance(word, str):
        raise ConfigurationError(f"{word!r} is no word, but {type(word).__name__}; give a text.")
    known = preprocess.vocabulary.find(word)
    if known is not None or preprocess.ngrams.has(word):
        return known or word
    alike = (other for other in preprocess.vocabulary.words if other[:2] == word[:2].lower())
    raise UnknownNameError(f"word in {model.name}", word, list(islice(alike, _NEIGHBOURS)))


def _preprocess(model: PretrainedModel) -> WordPreprocess:
    if not isinstance(model, PretrainedModel) or not isinstance(model.trunk, WordVectors):
        name = model.name if isinstance(model, PretrainedModel) else type(model).__name__
        raise ConfigurationError(f"{name} has no vectors of words; load glove, word2vec or fasttext.")
    if not isinstance(model.preprocess, WordPreprocess):
        raise ConfigurationError(f"this {model.name} has random weights and knows no words; load it with weights.")
    return model.preprocess


def _listed(words: Sequence[str] | str) -> list[str]:
    return [words] if isinstance(words, str) else list(words)
