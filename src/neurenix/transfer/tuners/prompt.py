"""Learned tokens before those of the input: soft prompts for texts, visual prompts for ViTs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from torch import nn

from ...devices import Precision
from ...errors import ConfigurationError
from ...nn import Prompted, wrap
from ..heads._choice import HeadChoice
from .first_prompts import first_prompts
from .method import TUNERS, MethodSettings, MethodTuner, new_parameters
from .places import blocks


@dataclass(frozen=True, kw_only=True)
class PromptSettings(MethodSettings):
    """See PromptTuner, which documents each of them."""

    prompt_length: int
    prompt_type: str
    prompt_init: str
    prompt_text: str | None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prompt_length < 1:
            raise ConfigurationError(f"prompt_length={self.prompt_length}; it is a number of tokens, at least 1.")
        if self.prompt_type not in ("shallow", "deep"):
            raise ConfigurationError(f"prompt_type={self.prompt_type!r}; possible: 'shallow', 'deep'.")
        if self.prompt_init not in ("auto", "random", "vocabulary", "text"):
            raise ConfigurationError(
                f"prompt_init={self.prompt_init!r}; possible: 'auto', 'random', 'vocabulary', 'text'."
            )
        if (self.prompt_init == "text") != (self.prompt_text is not None):
            raise ConfigurationError("prompt_init='text' begins as the words of prompt_text; give both, or neither.")


@TUNERS.register("prompt", "prompts", "soft_prompt", "vpt")
@final
class PromptTuner(MethodTuner):
    """Trains tokens that a transformer reads beside those of its input, and a head.

    Lester et al., The Power of Scale for Parameter-Efficient Prompt Tuning, EMNLP 2021; Liu et al., P-Tuning v2, ACL
    2022; Jia et al., Visual Prompt Tuning, ECCV 2022. They go in behind the embeddings and are taken out before the
    pooling.

    Args:
        model: from load_pretrained_model, or any torch module whose last linear layer is its head.
        num_classes: outputs of the new head; None keeps the model's own, and where it has none makes one in the first
            fit, as the data need it.
        prompt_length: number of tokens.
        prompt_type: "shallow" (tokens that go through all blocks) or "deep" (tokens of its own for each block).
        prompt_init: "random", "vocabulary" (words drawn from it), "text" (the words of prompt_text, repeated), or
            "auto": vocabulary for texts, else random. In deep ones it is that of the first block.
        prompt_text: the words to begin with.
        learning_rate: of the method's parameters and of the head; None takes 1e-2 for deep prompts,
            3e-2 for shallow ones, and 1e-3 for the head.
        solve_head: a new linear head begins in closed form, on the features of the base; else at random.
        seed: of the start of what is new, of sample order, augmentation and dropout.
        weight_decay, optimizer, loss, metrics, dropout_rate, schedule, warmup, precision, accumulation_steps,
        clip_norm, label_smoothing, class_weights, frozen_prefix, prefix_storage, backend, head: see Finetuner.

    Raises:
        UnknownNameError: a layer or another name does not exist.
        ConfigurationError: an argument cannot work, or the model has no place for the method.
    """

    settings: PromptSettings

    def __init__(
        self,
        model: nn.Module,
        num_classes: int | None = None,
        prompt_length: int = 20,
        prompt_type: str = "deep",
        prompt_init: str = "auto",
        prompt_text: str | None = None,
        learning_rate: float | None = None,
        weight_decay: float = 1e-5,
        optimizer: str = "adam",
        loss: str | None = None,
        metrics: Sequence[str] | None = None,
        dropout_rate: float = 0.0,
        head: HeadChoice = None,
        solve_head: bool = True,
        schedule: str = "cosine",
        warmup: float = 0.1,
        precision: Precision = "auto",
        accumulation_steps: int = 1,
        clip_norm: float | None = 1.0,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | str | None = None,
        frozen_prefix: str = "auto",
        prefix_storage: str = "auto",
        backend: str = "auto",
        seed: int = 0,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "model", "__class__")}
        super().__init__(model, PromptSettings.of(given))

    def _install(self) -> list[str]:
        before = {id(parameter) for parameter in self.model.parameters()}
        chosen, count = blocks(self.model, None), self.settings.prompt_length
        recurrent = any(isinstance(part, nn.RNNBase) for block in chosen for part in block.module.modules())
        if recurrent or any(place.maps for place in chosen):
            raise ConfigurationError(f"{self.model.name} has no tokens, so there is no place for prompts.")
        deep, place = self.settings.prompt_type == "deep", self.model.pool.prefix_tokens
        self.own_rate = 1e-2 if deep else 3e-2
        for number, block in enumerate(chosen):
            first, last = number == 0, number == len(chosen) - 1
            prompts = first_prompts(self.model, self.settings, block.width, first=first) if deep or first else None
            prompted = Prompted(block.module, count, prompts, place=place, removes=deep or last)
            wrap(self.model, block.name, prompted)
        return new_parameters(self.model, before)
