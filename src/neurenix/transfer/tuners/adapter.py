"""Bottleneck adapters in every block: Houlsby's two, Pfeiffer's one, or one in parallel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from torch import nn

from ...devices import Precision
from ...errors import ConfigurationError
from ...nn import ACTIVATIONS, Bottleneck, wrap
from ..heads._choice import HeadChoice
from .adapter_types import ADAPTER_TYPES
from .method import TUNERS, MethodSettings, MethodTuner, new_parameters
from .places import blocks


@dataclass(frozen=True, kw_only=True)
class AdapterSettings(MethodSettings):
    """See AdapterTuner, which documents each of them."""

    adapter_size: int
    adapter_type: str
    adapter_init_scale: float
    adapter_activation: str
    layers: Sequence[str] | str | int | None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.adapter_size < 1:
            raise ConfigurationError(f"adapter_size={self.adapter_size}; it is a number of features, at least 1.")
        if not 0 <= self.adapter_init_scale < 1:
            raise ConfigurationError(
                f"adapter_init_scale={self.adapter_init_scale}; it is a standard deviation, 0 or a small number, so "
                "that the model begins as it was."
            )


@TUNERS.register("adapter", "adapters", "bottleneck")
@final
class AdapterTuner(MethodTuner):
    """Trains small bottleneck networks between the layers of a frozen model, and a head.

    Houlsby et al., Parameter-Efficient Transfer Learning for NLP, ICML 2019; Pfeiffer et al., AdapterFusion, EACL 2021;
    He et al., Towards a Unified View of Parameter-Efficient Transfer Learning, ICLR 2022. Works on transformers whose
    layers have declared roles, and on networks of residual blocks, whose adapters are 1x1 convolutions behind a block.

    Args:
        model: from load_pretrained_model, or any torch module whose last linear layer is its head.
        num_classes: outputs of the new head; None keeps the model's own, and where it has none makes one in the first
            fit, as the data need it.
        adapter_size: features in the middle of an adapter.
        adapter_type: "houlsby" (behind the attention and behind the feed-forward part of each block), "pfeiffer"
            (behind the feed-forward part alone), or "parallel" (beside the feed-forward part).
        adapter_init_scale: standard deviation of an adapter's last layer at first; 0 begins with the base exactly.
        adapter_activation: between its two layers, by name.
        layers: blocks that get adapters, by name or glob; a number for so many from the top; None for all.
        learning_rate: of the method's parameters and of the head; None takes 1e-3.
        solve_head: a new linear head begins in closed form, on the features of the base; else at random.
        seed: of the start of what is new, of sample order, augmentation and dropout.
        weight_decay, optimizer, loss, metrics, dropout_rate, schedule, warmup, precision, accumulation_steps,
        clip_norm, label_smoothing, class_weights, frozen_prefix, prefix_storage, backend, head: see Finetuner.

    Raises:
        UnknownNameError: a layer or another name does not exist.
        ConfigurationError: an argument cannot work, or the model has no place for the method.
    """

    settings: AdapterSettings

    def __init__(
        self,
        model: nn.Module,
        num_classes: int | None = None,
        adapter_size: int = 64,
        adapter_type: str = "houlsby",
        adapter_init_scale: float = 1e-3,
        adapter_activation: str = "relu",
        layers: Sequence[str] | str | int | None = None,
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
        super().__init__(model, AdapterSettings.of(given))

    def _install(self) -> list[str]:
        before = {id(parameter) for parameter in self.model.parameters()}
        chosen = blocks(self.model, self.settings.layers)
        for place, wrapper in ADAPTER_TYPES[self.settings.adapter_type](self.model, chosen):
            adapter = Bottleneck(
                place.width,
                self.settings.adapter_size,
                init_scale=self.settings.adapter_init_scale,
                activation=ACTIVATIONS[self.settings.adapter_activation](),
                maps=place.maps,
            )
            wrap(self.model, place.name, wrapper(place.module, adapter))
        return new_parameters(self.model, before)
