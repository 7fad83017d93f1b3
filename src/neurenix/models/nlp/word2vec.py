"""Word2Vec: Mikolov et al., Distributed Representations of Words and Phrases, NeurIPS 2013.

Google's three million words and phrases (New_York) of news, in upper and lower case; digits are written as #. The
vectors take 3.6 GB of memory. Whoever needs the most frequent words alone reads them with read_word_vectors(path,
limit=…), stores what it gives as safetensors, and loads that file.
"""

from __future__ import annotations

from .._records import ARCHITECTURES
from ._word_vectors import GENSIM_DATA, architecture, word_vectors

PAPER = "Mikolov et al., Distributed Representations of Words and Phrases, NeurIPS 2013, arXiv:1310.4546"

ARCHITECTURES.add(
    "word2vec",
    architecture(
        "word2vec",
        paper=PAPER,
        sizes=(3_000_000, 300),
        weights=(
            word_vectors(
                "google-news-300",
                f"{GENSIM_DATA}/word2vec-google-news-300/word2vec-google-news-300.gz",
                md5="a5e5354d40acb95f9ec66d5977d140ef",
                licence="not stated by the publisher (Google)",
                paper=PAPER,
            ),
        ),
    ),
)
