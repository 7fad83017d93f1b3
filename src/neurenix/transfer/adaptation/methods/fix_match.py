"""FixMatch: what the model is sure of in a sample, it should say of a changed view of it too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional

from ....models import PretrainedModel
from ..method import METHODS, DomainStep, Sizes, Term, TermMethod
from ._aside import AsideTerm
from ._nothing import nothing
from ._settings import check_at_least_zero, check_share
from ._views import strong_view

_MOMENTUM = 0.9  # of the mean answers


@METHODS.register("fixmatch")
@final
@dataclass(frozen=True, kw_only=True)
class FixMatch(TermMethod):
    """Confident answers for target samples are the labels of strongly changed views of them.

    Sohn et al., FixMatch, NeurIPS 2020, equation 4, made safe for two domains as Berthelot et al. do in AdaMatch, ICLR
    2022, sections 3.1 and 3.2: source samples are learned from in strong views too, answers are aligned to the source's
    mean answer, and how sure one has to be is relative to how sure the source's are. The weak view is the sample as the
    data give it, with what augmentation they have, so that its answer costs no pass of its own. The views are made of
    the samples themselves, so no layers' answers can be stored: an image moved after the first layers is not what those
    make of a moved image.

    weight: of the pseudo-labels' loss. threshold: least probability of a class that is taken for the label, as a share
    of the source's mean one. warmup: share of the steps in which the weight grows from 0. source_weight: of the loss of
    the source's strong views. align: False where the target has other class frequencies than the source; the threshold
    is then absolute. mirror: whether an image may be mirrored, which letters and digits may not.
    """

    family: ClassVar[str] = "self_training"
    reads_inputs: ClassVar[str | None] = "strong views are made of the samples themselves"
    weight: float = 1.0
    threshold: float = 0.9
    warmup: float = 0.1
    source_weight: float = 1.0
    align: bool = True
    mirror: bool = False

    def check(self) -> None:
        """Threshold and warmup are shares."""
        check_at_least_zero("weight", self.weight)
        check_at_least_zero("source_weight", self.source_weight)
        check_share("threshold", self.threshold)
        check_share("warmup", self.warmup)

    def term(self, sizes: Sizes) -> Term:
        """Nothing that learns; it remembers the mean answers."""
        return _Term(self, sizes.outputs)


@final
class _Term(AsideTerm):
    source_mean: Tensor
    target_mean: Tensor
    steps: Tensor

    def __init__(self, method: FixMatch, classes: int) -> None:
        super().__init__()
        self.method = method
        self.register_buffer("source_mean", torch.zeros(classes))  # moving mean answer for source samples
        self.register_buffer("target_mean", torch.zeros(classes))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self._means: tuple[Tensor, Tensor] | None = None  # as they are once this step is made

    def forward(self, step: DomainStep) -> dict[str, Tensor]:
        weight = self.method.weight * grown(step.progress, self.method.warmup)
        losses = {"pseudo_labels": weight * self._target_loss(step)}
        if self.method.source_weight:
            losses["source_views"] = self.method.source_weight * self._source_loss(step)
        return losses

    def end_step(self, model: PretrainedModel) -> None:
        """The step is made, and its answers count."""
        if self._means is not None:
            self.source_mean.copy_(self._means[0])
            self.target_mean.copy_(self._means[1])
            self.steps += 1
            self._means = None

    def _target_loss(self, step: DomainStep) -> Tensor:
        if not len(step.target):
            return nothing(step.target)
        _, outputs = self.ask_aside(step, strong_view(step.target.inputs, self.method.mirror), "target")
        return pseudo_label_loss(outputs, *self._aligned(step))

    def _source_loss(self, step: DomainStep) -> Tensor:
        if not len(step.source):
            return nothing(step.source)
        assert step.source.targets is not None
        _, outputs = self.ask_aside(step, strong_view(step.source.inputs, self.method.mirror), "source")
        return step.compare(outputs, step.source.targets)

    def _aligned(self, step: DomainStep) -> tuple[Tensor, Tensor | float]:
        """Probabilities (n, k) of target samples, and how sure one has to be."""
        answers = step.target.outputs.detach().softmax(1)
        if not len(step.source) or not self.method.align:
            return answers, self.method.threshold
        source = step.source.outputs.detach().softmax(1)
        keep = torch.where(self.steps == 0, 0.0, _MOMENTUM)
        means = [
            keep * mean + (1 - keep) * new.mean(0)
            for mean, new in ((self.source_mean, source), (self.target_mean, answers))
        ]
        self._means = (means[0], means[1])
        return aligned(answers, *self._means), self.method.threshold * source.amax(1).mean()


def aligned(answers: Tensor, source_mean: Tensor, target_mean: Tensor) -> Tensor:
    """p_ik · s_k / t_k, made to sum to 1: answers whose mean is the source's. (n, k), (k,), (k,) -> (n, k).

    Berthelot et al., AdaMatch, ICLR 2022, section 3.1.
    """
    moved = answers * source_mean / target_mean.clamp(min=1e-6)
    return moved / moved.sum(1, keepdim=True)


def pseudo_label_loss(strong: Tensor, answers: Tensor, threshold: float | Tensor) -> Tensor:
    """1/n Σ_i 1(max p_i ≥ threshold) · −log q_i[argmax p_i], p of the weak views and q of the strong ones, in nats.

    Sohn et al., FixMatch, NeurIPS 2020, equation 4. strong: logits (n, k). answers: probabilities (n, k), that no
    gradient reaches -> ().
    """
    confidence, labels = answers.detach().max(1)
    losses = functional.cross_entropy(strong, labels, reduction="none")
    return (losses * (confidence >= threshold)).mean()


def grown(progress: float, warmup: float) -> float:
    """From 0 to 1 in the first `warmup` of the steps, and 1 after them."""
    return min(1.0, progress / warmup) if warmup else 1.0
