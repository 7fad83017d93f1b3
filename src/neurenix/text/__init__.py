"""Texts: what weights expect of them, tokenisation and tokenised datasets."""

from __future__ import annotations

from ._input import TextInput as TextInput
from .guard import check_tokens as check_tokens
from .preprocess import TextPreprocess as TextPreprocess
from .tokenized import TokenizedDataset as TokenizedDataset
from .translation import TranslationInput as TranslationInput
from .translation import TranslationPreprocess as TranslationPreprocess

__all__ = [
    "TextInput",
    "TextPreprocess",
    "TokenizedDataset",
    "TranslationInput",
    "TranslationPreprocess",
    "check_tokens",
]
