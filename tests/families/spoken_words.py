"""Data sets of spoken words and sentences."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from examples.spoken_words import sound

from neurenix.data import ListDataset

WORDS = ["down", "left", "no", "right", "up", "yes"]


def spoken(languages: Sequence[str], variants: Sequence[str], rates: Sequence[int]) -> ListDataset:
    """Every word by every voice at every rate, as ((samples, hertz), word)."""
    said = list(itertools.product(WORDS, languages, variants, rates))
    return ListDataset(
        [sound(word, f"{language}+{variant}", rate) for word, language, variant, rate in said], [row[0] for row in said]
    )


def sentences_by(voices: Sequence[str], sentences: Sequence[str]) -> ListDataset:
    """Every sentence by every voice, as ((samples, hertz), voice)."""
    said = list(itertools.product(sentences, voices))
    return ListDataset([sound(sentence, f"en-us+{voice}", 170) for sentence, voice in said], [row[1] for row in said])
