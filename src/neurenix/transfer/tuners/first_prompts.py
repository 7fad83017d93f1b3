"""What prompts begin as."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...errors import ConfigurationError
from ...models import PretrainedModel
from ...text import TextPreprocess
from .places import layers_of

if TYPE_CHECKING:
    from .prompt import PromptSettings

_SPREAD = 0.02  # standard deviation of random prompts, that of most transformers' embeddings


def first_prompts(model: PretrainedModel, settings: PromptSettings, width: int, *, first: bool) -> Tensor:
    """Prompts (1, length, width). first: they are those of the first block, which can begin as embedded words."""
    is_text = isinstance(model.preprocess, TextPreprocess) and bool(layers_of(model, "stem"))
    kind = settings.prompt_init
    if kind == "auto":
        kind = "vocabulary" if is_text else "random"
    if kind == "random" or not first:
        return torch.randn(1, settings.prompt_length, width) * _SPREAD
    if not is_text:
        raise ConfigurationError(f"prompt_init={kind!r} needs a model of texts, with its tokenizer; take 'random'.")
    if kind == "text":
        return _embedded(model, _repeated(_words(model, settings.prompt_text or ""), settings.prompt_length))
    vocabulary = int(getattr(getattr(model.trunk, "config", None), "vocab_size", 0))
    return _embedded(model, torch.randint(vocabulary, (settings.prompt_length,)))


@torch.no_grad()
def _embedded(model: PretrainedModel, words: Tensor) -> Tensor:
    """Token numbers (length,) as the blocks see them, (1, length, width)."""
    stem: Any = layers_of(model, "stem")[0].module
    was_training = stem.training
    try:
        embedded: Tensor = stem.eval()(words.unsqueeze(0).to(next(stem.parameters()).device))
    finally:
        stem.train(was_training)
    return embedded.float()


def _words(model: PretrainedModel, text: str) -> Tensor:
    """Token numbers of a text, without those that the tokenizer puts around it."""
    inner = torch.tensor(model.preprocess.words(text), dtype=torch.int64)
    if not len(inner):
        raise ConfigurationError(f"prompt_text={text!r} holds no word to begin with.")
    return inner


def _repeated(words: Tensor, length: int) -> Tensor:
    return words.repeat(-(-length // len(words)))[:length]
