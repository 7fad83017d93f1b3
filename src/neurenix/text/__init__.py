"""Texts: what weights expect of them, tokenisation and tokenised datasets."""

from __future__ import annotations

from ._input import TextInput as TextInput
