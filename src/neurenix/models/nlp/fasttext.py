"""fastText: Bojanowski et al., Enriching Word Vectors with Subword Information, TACL 2017.

A word's vector is the mean of its own row and those of its n-grams of letters, so unknown words have one too. The
English vectors of Common Crawl (two million words, as many buckets, 5-grams) take 4.8 GB of memory; "wiki-news-300"
are vectors of whole words.
"""

from __future__ import annotations

from .._records import ARCHITECTURES
from ._word_vectors import GENSIM_DATA, architecture, word_vectors

PAPER = "Bojanowski et al., Enriching Word Vectors with Subword Information, TACL 2017, arXiv:1607.04606"
CRAWL_PAPER = "Grave et al., Learning Word Vectors for 157 Languages, LREC 2018, arXiv:1802.06893"
NEWS_PAPER = "Mikolov et al., Advances in Pre-Training Distributed Word Representations, LREC 2018, arXiv:1712.09405"

ARCHITECTURES.add(
    "fasttext",
    architecture(
        "fasttext",
        paper=PAPER,
        sizes=(4_000_000, 300),
        ngrams=(5, 5, 2_000_000),
        weights=(
            word_vectors(
                "cc.en.300",
                "https://dl.fbaipublicfiles.com/fasttext/vectors-crawl/cc.en.300.bin.gz",
                md5=None,
                licence="CC-BY-SA-3.0",
                paper=CRAWL_PAPER,
            ),
            word_vectors(
                "wiki-news-300",
                f"{GENSIM_DATA}/fasttext-wiki-news-subwords-300/fasttext-wiki-news-subwords-300.gz",
                md5="de2bb3a20c46ce65c9c131e1ad9a77af",
                licence="CC-BY-SA-3.0",
                paper=NEWS_PAPER,
            ),
        ),
    ),
)
