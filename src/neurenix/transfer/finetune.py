"""Fine-tune a pretrained model on your data: all of it, or some of its layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, final

from torch import nn

from ..devices import Precision
from ..training import Rates, expanded, frozen_now, released, resolve_rates, topmost
from .finetune_settings import FinetuneSettings
from .heads._choice import HeadChoice
from .strategies import Plan
from .tuner import Tuner


@final
class Finetuner(Tuner):
    """Adapt a pretrained model to a task by training all of it or some of its layers.

    The model is copied: what you loaded stays as it was, and `finetuner.model` is the tuned one. What a fit trains is
    decided by the strategy and by the layers that are frozen.

    Args:
        model: from load_pretrained_model, or any torch module whose last linear layer is its head.
        num_classes: outputs of the new head (classes, labels or regression values); None keeps the model's own, and
            where it has none makes one in the first fit, as the data need it.
        freeze_layers: names or globs of layers that keep every byte, e.g. ["conv1", "layer1", "blocks.*.norm1"].
        dropout_rate: dropout before each linear layer of the new head.
        head_hidden_sizes: widths of hidden layers in the new head; none for a linear head.
        head_activation: activation between them, by name.
        head: a kind of head, neurenix.transfer.heads.Cosine(num_outputs=5, scale=20.0) say, or its name, "cosine"; None
            for the one that num_classes and the three settings above describe. See list_heads().
        learning_rate: for all layers; None takes 1e-3 for the head and a tenth (5e-5 in transformers) for the body.
        weight_decay: on matrices; biases and normalisation are left out.
        optimizer: adam, adamw, sgd, rmsprop, nadam, radam, adagrad, adafactor.
        loss: cross_entropy, focal, binary_cross_entropy (several labels per sample), mse, mae, huber; "own" for the
            losses that the head of a detector or segmenter brings. None is "own" where the model was loaded with such a
            head, else cross_entropy.
        metrics: names, see neurenix.metrics.METRICS; None takes the task's usual ones: accuracy, mse, mean_iou, …
        layer_learning_rates: {"layer3.*": 1e-4, "fc": 1e-3}, the longest match wins; or the factor from stage to stage.
        strategy: full, partial, head, progressive, lp_ft, auto; None is full, or partial when layers are frozen.
        unfreeze_by: "epoch" or "plateau", for strategy="progressive".
        schedule: constant, cosine, linear, one_cycle, step, plateau; over the epochs of one fit.
        warmup: share of the steps (below 1) or number of steps in which the rate rises linearly.
        precision: what torch computes in: "fp32", "bf16", "fp16", or "auto", which is bf16 where the device is faster
            in it and the model has 100,000 weights or more, and else fp32; with "auto" frozen layers may take 8 bits,
            where these are faster and agree.
        accumulation_steps: batches per optimizer step.
        clip_norm: largest norm of the whole gradient; None for no clipping.
        ema_decay: keep an exponential moving average of the weights, and end with it.
        label_smoothing: share of the target spread over all classes.
        mixup_alpha: Beta parameter of mixup (images only); 0 is off.
        class_weights: one number per class, or "balanced".
        norm_statistics: what batch norms that are trained normalise with: the "batch", or their "pretrained"
            statistics, which suits small batches and data; "auto" is pretrained for lp_ft, whose head was solved on
            features made with them, and batch otherwise.
        augmented_views: augmented versions of each training image, which come in turn; None makes new ones in every
            epoch, which learns more and leaves nothing to keep from one epoch to the next.
        frozen_prefix: keep what frozen layers give, computed once per sample: "auto" where it pays, "always", "never".
            Where samples are new in every epoch the frozen layers run by a backend, but for "never".
        prefix_storage: how that is kept: "auto" as it comes, "fp32", "bf16" or "int8", which take less room and round.
        backend: what runs frozen layers and predictions: "auto" (measured), "eager" or one of backends.BACKENDS.
        seed: of the head's start, sample order, augmentation, dropout. The same seed gives the same run.

    Raises:
        UnknownNameError: a layer, loss, metric, optimizer, schedule or strategy of that name does not exist.
        ConfigurationError: an argument's value cannot work.
    """

    def __init__(
        self,
        model: nn.Module,
        num_classes: int | None = None,
        freeze_layers: Sequence[str] = (),
        dropout_rate: float = 0.0,
        head_hidden_sizes: Sequence[int] = (),
        head_activation: str = "relu",
        head: HeadChoice = None,
        learning_rate: float | None = None,
        weight_decay: float = 1e-5,
        optimizer: str = "adam",
        loss: str | None = None,
        metrics: Sequence[str] | None = None,
        layer_learning_rates: Mapping[str, float] | float | None = None,
        strategy: str | None = None,
        unfreeze_by: str = "epoch",
        schedule: str = "cosine",
        warmup: float = 0.1,
        precision: Precision = "auto",
        accumulation_steps: int = 1,
        clip_norm: float | None = 1.0,
        ema_decay: float | None = None,
        label_smoothing: float = 0.0,
        mixup_alpha: float = 0.0,
        class_weights: Sequence[float] | str | None = None,
        norm_statistics: str = "auto",
        augmented_views: int | None = None,
        frozen_prefix: str = "auto",
        prefix_storage: str = "auto",
        backend: str = "auto",
        seed: int = 0,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "model", "__class__")}
        self.settings: FinetuneSettings
        super().__init__(model, FinetuneSettings.of(given))

    def unfreeze_layers(self, layers: Sequence[str] | str) -> None:
        """Let layers learn from the next fit on, and of what is frozen now only them.

        The optimizer's moments of the others stay. strategy="head" becomes "partial" by this.
        """
        self._freeze(released(self._frozen_now(), expanded(self.model, layers)))

    def freeze_layers(self, layers: Sequence[str] | str) -> None:
        """Keep more layers as they are, from the next fit on."""
        self._freeze(tuple(dict.fromkeys([*self._frozen_now(), *expanded(self.model, layers)])))

    # --- parts -------------------------------------------------------------------------------------------------

    def _prepare(self) -> tuple[str, ...]:
        return expanded(self.model, self.settings.freeze_layers)

    def _rates(self, learning_rate: float | None) -> Rates:
        return resolve_rates(self.model, learning_rate, self.settings.layer_learning_rates)

    def _keeps_statistics(self, solved_head: bool) -> bool:
        return self.settings.keeps_statistics(solved_head)

    def _title(self) -> str:
        return f"strategy {self.settings.strategy}"

    def _stored_settings(self) -> dict[str, Any]:
        return {**asdict(self.settings), "freeze_layers": topmost(self.model, self._frozen)}

    def _plan(self, samples: int, epochs: int) -> Plan:
        return self.settings.plan(self.model, self._frozen, samples, self.num_outputs, epochs)

    def _frozen_now(self) -> tuple[str, ...]:
        return self._frozen if self._chooses_layers() else frozen_now(self.model)

    def _freeze(self, frozen: tuple[str, ...]) -> None:
        if not self._chooses_layers():
            self.settings = replace(self.settings, strategy="partial" if frozen else "full")
        self._frozen = frozen
        self._show_frozen()

    def _chooses_layers(self) -> bool:
        """Whether the next fit's strategy decides what is frozen beside the layers named; auto does it once."""
        strategy = self.settings.strategy
        return strategy in ("lp_ft", "progressive") or (strategy == "auto" and not self.history)
