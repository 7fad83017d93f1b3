"""IA3: keys, values and what is between the two layers of a feed-forward part are scaled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import nn

from ...devices import Precision
from ...models import PretrainedModel
from ...nn import ScaledInput, ScaledShifted, wrap
from ..heads._choice import HeadChoice
from .folding import fold_scales
from .method import TUNERS, BlockSettings, MethodTuner, new_parameters
from .places import blocks, input_width, layers_of, linear


@TUNERS.register("ia3", "(ia)3")
@final
class IA3Tuner(MethodTuner):
    """Trains one factor for each feature of keys, values and feed-forward parts, and a head. It can be merged.

    Liu et al., Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning, NeurIPS 2022,
    section 3.3. For transformers that declare these layers.

    Args:
        model: from load_pretrained_model, or any torch module whose last linear layer is its head.
        num_classes: outputs of the new head; None keeps the model's own, and where it has none makes one in the first
            fit, as the data need it.
        layers: blocks that are scaled, by name or glob; a number for so many from the top; None for all.
        learning_rate: of the method's parameters and of the head; None takes 1e-2 for those, 1e-3 for the head.
        solve_head: a new linear head begins in closed form, on the features of the base; else at random.
        seed: of the start of what is new, of sample order, augmentation and dropout.
        weight_decay, optimizer, loss, metrics, dropout_rate, schedule, warmup, precision, accumulation_steps,
        clip_norm, label_smoothing, class_weights, frozen_prefix, prefix_storage, backend, head: see Finetuner.

    Raises:
        UnknownNameError: a layer or another name does not exist.
        ConfigurationError: an argument cannot work, or the model has no place for the method.
    """

    own_rate: float = 1e-2
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
        before = {id(parameter) for parameter in self.model.parameters()}
        names = [block.name for block in blocks(self.model, self.settings.layers)]
        for role in ("attention.key", "attention.value"):
            for place in layers_of(self.model, role, names):
                wrap(self.model, place.name, ScaledShifted(place.module, place.width, shifts=False, maps=False))
        for place in layers_of(self.model, "attention.qkv", names):
            queries = place.width // 3
            scaled = ScaledShifted(place.module, place.width, shifts=False, maps=False, first=queries)
            wrap(self.model, place.name, scaled)
        for place in linear(layers_of(self.model, "mlp.out", names)):
            wrap(self.model, place.name, ScaledInput(place.module, input_width(place.module)))
        return new_parameters(self.model, before)

    def _fold(self, model: PretrainedModel) -> None:
        fold_scales(model)
