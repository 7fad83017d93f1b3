"""LoRA and its relatives: low-rank updates beside frozen weights, by peft, which can read the files too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, final

from torch import nn

from ...devices import Precision
from ...errors import ConfigurationError
from ...models import PretrainedModel
from ..arguments import as_list
from ..heads._choice import HeadChoice
from . import peft_files
from .low_rank import inject, merge_low_rank, remove_low_rank, target_names
from .method import TUNERS, MethodSettings, MethodTuner, new_parameters

_STARTS = ("zero", "gaussian", "pissa", "orthogonal", "olora")


@dataclass(frozen=True, kw_only=True)
class LoraSettings(MethodSettings):
    """See LoraTuner, which documents each of them."""

    rank: int
    alpha: float | None
    lora_dropout: float
    target_layers: Sequence[str] | str | None
    layers: Sequence[str] | str | int | None
    rank_stabilised: bool
    weight_decomposed: bool
    start: str
    rate_ratio: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank < 1:
            raise ConfigurationError(f"rank={self.rank}; it is the rank of an update, at least 1.")
        if not 0 <= self.lora_dropout < 1:
            raise ConfigurationError(f"lora_dropout={self.lora_dropout}; it is a share, at least 0 and below 1.")
        if self.rate_ratio <= 0:
            raise ConfigurationError(f"rate_ratio={self.rate_ratio}; it is a positive factor, 1 for plain LoRA.")
        if self.start not in _STARTS:
            raise ConfigurationError(f"start={self.start!r}; possible: {', '.join(map(repr, _STARTS))}.")

    @property
    def scale(self) -> float:
        """α, for which None stands for twice the rank."""
        return 2.0 * self.rank if self.alpha is None else self.alpha


@TUNERS.register("lora")
@final
class LoraTuner(MethodTuner):
    """Trains low-rank updates W + (α / r) B A of a frozen model's weights, and a head. They can be merged.

    Hu et al., LoRA, ICLR 2022; Kalajdzievski, A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA, 2023;
    Liu et al., DoRA, ICML 2024; Meng et al., PiSSA, NeurIPS 2024; Hayou et al., LoRA+, ICML 2024. The layers are those
    of the library peft, and a saved folder is one of peft's too.

    Args:
        model: from load_pretrained_model, or any torch module whose last linear layer is its head.
        num_classes: outputs of the new head; None keeps the model's own, and where it has none makes one in the first
            fit, as the data need it.
        rank: r, of each update.
        alpha: α, by which an update is scaled; None takes twice the rank.
        lora_dropout: share of an update's inputs that are dropped in training.
        target_layers: roles ("attention.query"), names or globs of linear and convolutional layers; None takes queries
            and values where the model declares them, and every linear and convolutional layer where it does not.
        layers: blocks to stay within, by name or glob; a number for so many from the top; None for all.
        rank_stabilised: scale by α / √r (rsLoRA).
        weight_decomposed: train the length of each weight's columns beside their direction (DoRA).
        start: of A and B: "zero" (B is), "gaussian", "orthogonal", "pissa" or "olora", which begin with the weight's
            main directions and take them out of the frozen part, so that the weight is stored too.
        rate_ratio: how many times faster B learns than A (LoRA+: 16).
        learning_rate: of the method's parameters and of the head; None takes 1e-3.
        solve_head: a new linear head begins in closed form, on the features of the base; else at random.
        seed: of the start of what is new, of sample order, augmentation and dropout.
        weight_decay, optimizer, loss, metrics, dropout_rate, schedule, warmup, precision, accumulation_steps,
        clip_norm, label_smoothing, class_weights, frozen_prefix, prefix_storage, backend, head: see Finetuner.

    Raises:
        UnknownNameError: a layer or another name does not exist.
        ConfigurationError: an argument cannot work, or the model has no place for the method.
    """

    settings: LoraSettings

    def __init__(
        self,
        model: nn.Module,
        num_classes: int | None = None,
        rank: int = 8,
        alpha: float | None = None,
        lora_dropout: float = 0.0,
        target_layers: Sequence[str] | str | None = None,
        layers: Sequence[str] | str | int | None = None,
        rank_stabilised: bool = False,
        weight_decomposed: bool = False,
        start: str = "zero",
        rate_ratio: float = 1.0,
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
        super().__init__(model, LoraSettings.of(given))

    def save(self, path: str | Path, standalone: bool = False) -> None:
        """As Finetuner.save; beside its files those of peft, which PeftModel.from_pretrained reads."""
        super().save(path, standalone)
        peft_files.write(Path(path), self.model, self.settings, self._originals)

    @classmethod
    def from_peft(cls, path: str | Path, model: nn.Module, num_classes: int | None = None) -> Self:
        """A tuner with the updates that peft saved. model: the base that they were trained on."""
        config, tensors = peft_files.read(Path(path))
        tuner = cls(model, num_classes, **peft_files.arguments(config, model))
        peft_files.put_into(tuner.model, tensors)
        return tuner

    def _install(self) -> list[str]:
        before = {id(parameter) for parameter in self.model.parameters()}
        targets = as_list(self.settings.target_layers) if self.settings.target_layers is not None else None
        inject(self.model, target_names(self.model, targets, self.settings.layers), self.settings)
        return new_parameters(self.model, before)

    def _layer_rates(self, rate: float) -> Mapping[str, float]:
        return {} if self.settings.rate_ratio == 1 else {"*.lora_B": rate * self.settings.rate_ratio}

    def _rewrites_base(self) -> bool:
        return self.settings.start in ("pissa", "olora")

    def _remove(self, model: PretrainedModel) -> None:
        remove_low_rank(model)

    def _fold(self, model: PretrainedModel) -> None:
        merge_low_rank(model)
