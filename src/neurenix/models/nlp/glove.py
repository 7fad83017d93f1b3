"""GloVe: Pennington et al., GloVe: Global Vectors for Word Representation, EMNLP 2014.

The vectors of 400,000 lower-case words of Wikipedia 2014 and Gigaword 5 ("6B"). The files are those of gensim-data,
which has each size by itself and states its MD5; glove.6B.zip of Stanford holds the same numbers.
"""

from __future__ import annotations

from .._records import ARCHITECTURES
from ._word_vectors import GENSIM_DATA, architecture, word_vectors

PAPER = "Pennington et al., GloVe: Global Vectors for Word Representation, EMNLP 2014"

# numbers of a vector -> MD5 of the file
PUBLISHED = {
    300: "29e9329ac2241937d55b852e8284e89b",
    200: "59652db361b7a87ee73834a6c391dfc1",
    100: "40ec481866001177b8cd4cb0df92924f",
    50: "c289bc5d7f2f02c6dc9f2f9b67641813",
}

ARCHITECTURES.add(
    "glove",
    architecture(
        "glove",
        paper=PAPER,
        sizes=(400_000, 300),
        weights=tuple(
            word_vectors(
                f"6b-{width}d",
                f"{GENSIM_DATA}/glove-wiki-gigaword-{width}/glove-wiki-gigaword-{width}.gz",
                md5=md5,
                licence="PDDL-1.0",
                paper=PAPER,
            )
            for width, md5 in PUBLISHED.items()
        ),
    ),
    "glove-6b",
)
