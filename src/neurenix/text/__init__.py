"""Texts: what weights expect of them, tokenisation and tokenised datasets."""

from __future__ import annotations

from ._input import TextInput as TextInput
from .guard import check_tokens as check_tokens
from .preprocess import TextPreprocess as TextPreprocess
from .tokenized import TokenizedDataset as TokenizedDataset

__all__ = ["TextInput", "TextPreprocess", "TokenizedDataset", "check_tokens"]
