"""The head of encoder-decoder models: a decoder that reads the encoder's features and gives the next token."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn

from ...errors import ConfigurationError, InputMismatchError
from ...nn import TaskHead, evaluating
from ._generation import GenerationSettings, generation_config, no_classes
from ._tokens import borrow, shifted_right, target_tokens, token_inputs, token_loss


class DecoderHead(TaskHead):
    """The library's decoder stack and what follows it: scores of the next target token at every place.

    The decoder reads the trunk's embedding, and gives scores by the same weights unless `lm_head` has its own.
    longest: positions that it has.
    """

    task: ClassVar[str] = "translation"
    has_classes: ClassVar[bool] = False
    writes: ClassVar[bool] = True

    def __init__(self, decoder: nn.Module, embedding: nn.Module, config: Any, *, longest: int) -> None:
        super().__init__()
        self.config, self.longest = config, longest
        self.decoder = decoder
        borrow(self, "embedding", embedding)
        borrow(decoder, "embed_tokens", embedding)
        self.lm_head: nn.Module | None = None

    @property
    def num_outputs(self) -> int:
        """Tokens of the vocabulary."""
        return int(self.config.vocab_size)

    def output_weight(self) -> nn.Parameter:
        """(vocabulary, d)"""
        owner = self.embedding if self.lm_head is None else self.lm_head
        return cast(nn.Parameter, owner.weight)  # type: ignore[union-attr]

    def forward(self, features: Tensor, inputs: Any) -> Tensor:
        """(n, t, d) -> scores (n, u, vocabulary) of the token behind each of inputs["decoder_input_ids"] (n, u).

        `attention_mask` (n, t) tells which features are real, `decoder_attention_mask` (n, u) which target tokens are.
        Without decoder_input_ids, u is 1: the scores of the first token.
        """
        given = token_inputs(inputs)
        tokens = given.get("decoder_input_ids")
        if tokens is None:
            tokens = given["input_ids"].new_full((len(features), 1), int(self.config.decoder_start_token_id))
        if tokens.ndim != 2 or len(tokens) != len(features):
            raise InputMismatchError(
                f"decoder_input_ids are {tuple(tokens.shape)}; they have to be (n, target tokens) for the "
                f"{len(features)} texts of the batch."
            )
        hidden = self.decoder(
            input_ids=tokens,
            attention_mask=given.get("decoder_attention_mask"),
            encoder_hidden_states=features,
            encoder_attention_mask=given.get("attention_mask"),
            use_cache=False,
        ).last_hidden_state
        return self._scores(hidden)

    def losses(self, features: Tensor, inputs: Any, targets: Any) -> dict[str, Tensor]:
        """Mean cross-entropy of each target token behind those before it.

        targets: (n, u), padded with -1 or -100, each ending with the end token: what encode_targets gives.
        """
        tokens = target_tokens(targets, self.num_outputs)
        before = shifted_right(
            tokens, start=int(self.config.decoder_start_token_id), padding=int(self.config.pad_token_id)
        )
        scores = self(features, {**token_inputs(inputs), "decoder_input_ids": before})
        return {"next_token": token_loss(scores, tokens)}

    def for_classes(self, num_outputs: int) -> Self:
        """Raises ConfigurationError: the outputs are words."""
        raise no_classes(self)

    def answers(self, features: Tensor, inputs: Any) -> Tensor:
        """The likeliest tokens of an answer to each text, (n, tokens); the preprocessing makes texts of them."""
        settings = GenerationSettings()
        most = min(settings.max_new_tokens, self.longest - 1)
        return self._search(features, token_inputs(inputs), replace(settings, max_new_tokens=most))

    @torch.inference_mode()
    def generate(self, trunk: nn.Module, inputs: Mapping[str, Tensor], settings: GenerationSettings) -> Tensor:
        """The decoder's answer to each text, (n, tokens). inputs: as of the trunk."""
        with evaluating(trunk):
            return self._search(trunk(inputs), token_inputs(inputs), settings)

    def _search(self, features: Tensor, inputs: Mapping[str, Tensor], settings: GenerationSettings) -> Tensor:
        """New tokens (n, t) by the library's own class around these very modules."""
        from transformers.modeling_outputs import BaseModelOutput

        if settings.max_new_tokens >= self.longest:
            raise ConfigurationError(
                f"max_new_tokens={settings.max_new_tokens} and the token that starts an answer are more than the "
                f"{self.longest} positions of the decoder; ask for fewer."
            )
        with evaluating(self), settings.draws():
            found = (
                self._library()
                .eval()
                .generate(
                    encoder_outputs=BaseModelOutput(last_hidden_state=features),
                    attention_mask=inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])),
                    generation_config=generation_config(settings, **self._special_tokens()),
                )
            )
        return cast(Tensor, found[:, 1:])

    def _special_tokens(self) -> dict[str, Any]:
        """What the library's search is told of the vocabulary."""
        return {
            "pad_token_id": self.config.pad_token_id,
            "eos_token_id": self.config.eos_token_id,
            "decoder_start_token_id": self.config.decoder_start_token_id,
        }

    @abc.abstractmethod
    def _scores(self, hidden: Tensor) -> Tensor:
        """(n, u, d) -> (n, u, vocabulary)"""

    @abc.abstractmethod
    def _library(self) -> Any:
        """The library's class with these modules in it; its encoder is not called."""
