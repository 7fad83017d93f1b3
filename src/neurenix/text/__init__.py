"""Texts: what weights expect of them, tokenisation and tokenised datasets."""

from __future__ import annotations

from ._input import TextInput as TextInput
from ._ngrams import NGrams as NGrams
from ._word_input import WordInput as WordInput
from .guard import check_tokens as check_tokens
from .preprocess import TextPreprocess as TextPreprocess
from .tokenized import TokenizedDataset as TokenizedDataset
from .translation import TranslationInput as TranslationInput
from .translation import TranslationPreprocess as TranslationPreprocess
from .word_preprocess import WordPreprocess as WordPreprocess

__all__ = [
    "NGrams",
    "TextInput",
    "TextPreprocess",
    "TokenizedDataset",
    "TranslationInput",
    "TranslationPreprocess",
    "WordInput",
    "WordPreprocess",
    "check_tokens",
]
