"""Texts from language models: tokens in, the library's search over our modules, texts out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ...errors import ConfigurationError
from ...nn import Prompted, TaskHead
from ...packages import require
from .._pretrained_model import PretrainedModel

_BATCH = 16  # texts at once


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """How tokens are chosen; see generate, which documents each."""

    max_new_tokens: int = 64
    num_beams: int = 1
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "num_beams"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigurationError(f"{name}={value!r}; it is a whole number, at least 1.")
        if not 0 <= self.temperature < float("inf"):
            raise ConfigurationError(f"temperature={self.temperature!r}; it is 0 (the likeliest token) or more.")
        if self.temperature and self.num_beams > 1:
            raise ConfigurationError("beams keep the likeliest texts and a temperature draws; give one of the two.")

    @contextlib.contextmanager
    def draws(self) -> Iterator[None]:
        """Random numbers by the seed while this is open; the caller's own are as before afterwards."""
        if not self.temperature:
            yield
            return
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            yield


@runtime_checkable
class Generating(Protocol):
    """A head that can generate."""

    def generate(self, trunk: nn.Module, inputs: Any, settings: GenerationSettings) -> Tensor:
        """New tokens (n, t) for inputs as the trunk reads them."""
        ...


def generate(
    model: PretrainedModel,
    texts: Sequence[str] | str,
    *,
    max_new_tokens: int = 64,
    num_beams: int = 1,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[str]:
    """What the model answers to each text: how it goes on (GPT-2), the answer (T5), its translation (Marian).

    Args:
        model: loaded with its language head, from a folder with its tokenizer.
        texts: one text, or several.
        max_new_tokens: where an answer ends that has not ended before.
        num_beams: texts that are followed at once, of which the likeliest stays; 1 takes the likeliest token.
        temperature: above 0, tokens are drawn: 1 by the model's own probabilities, less keeps to likelier ones.
        seed: of what is drawn.

    Raises:
        ConfigurationError: a setting cannot work, or the model has no language head or no tokenizer.
    """
    settings = GenerationSettings(
        max_new_tokens=max_new_tokens, num_beams=num_beams, temperature=temperature, seed=seed
    )
    if not isinstance(model.head, Generating):
        raise ConfigurationError(
            f"{model.name} has no head that generates text; load a language model with include_top=True."
        )
    if not hasattr(model.preprocess, "decode"):
        raise ConfigurationError(f"{model.name} was loaded without a tokenizer; put its files beside the weights.")
    wanted = [texts] if isinstance(texts, str) else list(texts)
    found: list[str] = []
    for start in range(0, len(wanted), _BATCH):
        inputs = _batch(model, wanted[start : start + _BATCH])
        tokens = cast(Generating, model.head).generate(model.trunk, inputs, settings)
        found += [model.preprocess.decode(row) for row in tokens.tolist()]
    return found


def _batch(model: PretrainedModel, texts: Sequence[str]) -> dict[str, Tensor]:
    """Tokens (n, longest text) on the model's device, padded behind the texts."""
    device = next(model.trunk.parameters()).device
    rows = model.preprocess.encode_many(texts)
    masks = [torch.ones_like(row) for row in rows]
    return {
        "input_ids": pad_sequence(rows, batch_first=True, padding_value=model.preprocess.pad_id).to(device),
        "attention_mask": pad_sequence(masks, batch_first=True).to(device),
    }


def generation_config(settings: GenerationSettings, **tokens: Any) -> Any:
    """The library's form of it. tokens: numbers of the special ones, as the library calls them."""
    transformers = require("transformers", purpose="generating text")
    drawn = {"do_sample": True, "temperature": settings.temperature, "top_k": 0} if settings.temperature else {}
    return transformers.GenerationConfig(
        max_new_tokens=settings.max_new_tokens, num_beams=settings.num_beams, **drawn, **tokens
    )


def no_classes(head: TaskHead) -> ConfigurationError:
    """The error for a language head that is asked for classes."""
    return ConfigurationError(
        f"{type(head).__name__} answers in {head.num_outputs} tokens, and there is no such head for classes of your "
        "own; load the model with include_top=False, or give num_classes to a tuner, which puts a classifier there."
    )


def refuse_prompts(trunk: nn.Module) -> None:
    """Raise ConfigurationError where learned prompts stand in the trunk: they would go in again before each token."""
    if any(isinstance(module, Prompted) for module in trunk.modules()):
        raise ConfigurationError(
            "this model reads learned prompts, with which generation token by token is not possible; tune it with "
            "LoraTuner or AdapterTuner."
        )
