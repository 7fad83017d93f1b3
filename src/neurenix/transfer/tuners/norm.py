"""Of a frozen model only the norms' scales and shifts are trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import nn

from ...devices import Precision
from ...models import PretrainedModel, covered
from ..heads._choice import HeadChoice
from .method import TUNERS, BlockSettings, MethodTuner
from .places import is_norm, names_within


@TUNERS.register("norm", "layer_norm", "norms")
@final
class NormTuner(MethodTuner):
    """Trains the scales and shifts of a model's norms, and a head; the statistics of batch norms stay.

    Basu et al., Strong Baselines for Parameter-Efficient Few-Shot Fine-Tuning, AAAI 2024, and Frankle et al., Training
    BatchNorm and Only BatchNorm, ICLR 2021.

    Args:
        model: from load_pretrained_model, or any torch module whose last linear layer is its head.
        num_classes: outputs of the new head; None keeps the model's own, and where it has none makes one in the first
            fit, as the data need it.
        layers: blocks whose norms are trained, by name or glob; a number for so many from the top; None for
            all of the model.
        learning_rate: of the method's parameters and of the head; None takes 5e-3 for those, 1e-3 for the head.
        solve_head: a new linear head begins in closed form, on the features of the base; else at random.
        seed: of the start of what is new, of sample order, augmentation and dropout.
        weight_decay, optimizer, loss, metrics, dropout_rate, schedule, warmup, precision, accumulation_steps,
        clip_norm, label_smoothing, class_weights, frozen_prefix, prefix_storage, backend, head: see Finetuner.

    Raises:
        UnknownNameError: a layer or another name does not exist.
        ConfigurationError: an argument cannot work, or the model has no place for the method.
    """

    own_rate: float = 5e-3
    settings: BlockSettings

    def __init__(
        self,
        model: nn.Module,
        num_classes: int | None = None,
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
        super().__init__(model, BlockSettings.of(given))

    def _install(self) -> list[str]:
        within = names_within(self.model, self.settings.layers)
        norms = [name for name, module in self.model.named_modules() if is_norm(module) and covered(name, within)]
        return [name for name, _ in self.model.named_parameters() if name.rpartition(".")[0] in norms]

    def _fold(self, model: PretrainedModel) -> None:
        """What was trained are weights of the base, so a merged model is the tuned one."""
