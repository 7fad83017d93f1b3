"""What Word2Vec, GloVe and fastText share: a table of vectors with its vocabulary, and how it is built from a file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import final

import torch
from torch import Tensor, nn

from ...errors import InputMismatchError, WeightsMismatchError
from ...text import WordInput
from .._records import Architecture, BuildOptions, Parts, StateDict, UrlSource, Weights
from ._word_vector_files import read_word_vectors

GENSIM_DATA = "https://github.com/RaRe-Technologies/gensim-data/releases/download"


@final
class WordVectors(nn.Module):
    """Words in, their vectors out: one row of `embedding`, or the mean of the word's row and those of its n-grams.

    embedding: (words + buckets, d).
    vocabulary: the words in UTF-8, one a line, as bytes; empty with random weights.
    ngrams: shortest, longest, buckets; zeros for vectors of whole words.
    """

    vocabulary: Tensor
    ngrams: Tensor

    def __init__(self, embedding: nn.Embedding, vocabulary: Tensor, ngrams: Tensor) -> None:
        super().__init__()
        self.embedding = embedding
        self.register_buffer("vocabulary", vocabulary)
        self.register_buffer("ngrams", ngrams)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """`input_ids` (n, words), or (n, words, rows) whose vectors are averaged; -1 is no row -> (n, words, d)."""
        if not isinstance(inputs, Mapping):
            raise InputMismatchError(
                f"word vectors are asked with a mapping that holds input_ids, not {type(inputs).__name__}; "
                "model.preprocess makes one from a text."
            )
        ids = inputs["input_ids"]
        vectors = self.embedding(ids.clamp(min=0)) * (ids >= 0).unsqueeze(-1)
        if ids.ndim == 2:
            return vectors
        return vectors.sum(2) / (ids >= 0).sum(2, keepdim=True).clamp(min=1)


def build_word_vectors(options: BuildOptions, *, rows: int, width: int, ngrams: tuple[int, int, int]) -> Parts:
    """The table in `options.state`, without a copy; else random vectors of the published sizes and no vocabulary."""
    if options.state is None:
        embedding = nn.Embedding(rows, width)
        trunk = WordVectors(embedding, torch.empty(0, dtype=torch.uint8), torch.tensor(ngrams))
    else:
        trunk = _from_state(options.state)
    return Parts(trunk=trunk, head=None, feature_size=trunk.embedding.embedding_dim, channels_last=True)


def _from_state(state: StateDict) -> WordVectors:
    table, vocabulary, ngrams = (state.get(f"trunk.{name}") for name in ("embedding.weight", "vocabulary", "ngrams"))
    if table is None or vocabulary is None or ngrams is None:
        raise WeightsMismatchError(
            "a table of word vectors has the tensors embedding.weight, vocabulary and ngrams; this file has "
            f"{', '.join(list(state)[:5])}. Give a word2vec, GloVe or fastText file, or one that this library saved."
        )
    words = _words_in(vocabulary)
    if table.ndim != 2 or ngrams.shape != (3,) or words + int(ngrams[2]) != len(table) or int(ngrams.min()) < 0:
        raise WeightsMismatchError(
            f"the file's table is {tuple(table.shape)}, and its vocabulary has {words:,} words and n-grams of "
            f"{ngrams.flatten().tolist()[:3]} (shortest, longest, buckets); each word and bucket needs a row."
        )
    return WordVectors(nn.Embedding.from_pretrained(table.float(), freeze=False), vocabulary, ngrams)


def _words_in(vocabulary: Tensor) -> int:
    try:
        if vocabulary.dtype != torch.uint8 or vocabulary.ndim != 1:
            raise ValueError(f"it is {vocabulary.dtype} of shape {tuple(vocabulary.shape)}")
        words = vocabulary.numpy(force=True).tobytes().decode("utf-8").split("\n")
    except ValueError as error:
        raise WeightsMismatchError(f"the file's vocabulary is no text in UTF-8, one word a line: {error}.") from error
    if len(set(words)) < len(words) or not all(words):
        raise WeightsMismatchError("the file's vocabulary has an empty word, or one word twice.")
    return len(words)


def word_vectors(name: str, url: str, *, md5: str | None, licence: str, paper: str) -> Weights:
    """The record of one published file of vectors."""
    return Weights(
        name=name,
        source=UrlSource(url=url, sha256=None, md5=md5),
        licence=licence,
        paper=paper,
        input=WordInput(),
        read=read_word_vectors,
    )


def architecture(
    name: str,
    *,
    paper: str,
    sizes: tuple[int, int],
    weights: tuple[Weights, ...],
    ngrams: tuple[int, int, int] = (0, 0, 0),
) -> Architecture:
    """The record of one family. sizes: rows and numbers of the first set of weights, which is the default."""
    return Architecture(
        name=name,
        domain="nlp",
        tasks=("classification", "features"),
        build=partial(build_word_vectors, rows=sizes[0], width=sizes[1], ngrams=ngrams),
        input=WordInput(),
        stages=("embedding",),
        head_name="classifier",
        pooling="avg",
        paper=paper,
        licence="apache-2.0",
        weights={record.name: record for record in weights},
        default_weights=weights[0].name,
        outputs=0,
        roles={"stem": "embedding"},
    )
