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

_MOMENTUM = 0.9  # of the source's mean answer
_REMEMBERED = 256  # answers for target samples
_SWEEPS = 10


@METHODS.register("fixmatch")
@final
@dataclass(frozen=True, kw_only=True)
class FixMatch(TermMethod):
    """Confident answers for target samples are the labels of strongly changed views of them.

    Sohn et al., FixMatch, NeurIPS 2020, equation 4, made safe for two domains as Berthelot et al. do in AdaMatch, ICLR
    2022, sections 3.1 and 3.2: source samples are learned from in strong views too, answers are aligned to the source's
    mean answer, and how sure one has to be is relative to how sure the source's are. Deviation: aligned answers have
    the source's mean answer, as in Tai et al., Sinkhorn Label Allocation, ICML 2021; one scaling, as in AdaMatch, does
    not give them that, and on texts all but a tenth of the target became one class. The weak view is the sample as the
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
        """Nothing that learns; it remembers answers."""
        return _Term(self, sizes.outputs)


@final
class _Term(AsideTerm):
    source_mean: Tensor
    seen: Tensor

    def __init__(self, method: FixMatch, classes: int) -> None:
        super().__init__()
        self.method = method
        self.register_buffer("source_mean", torch.zeros(classes))  # moving mean answer for source samples
        self.register_buffer("seen", torch.zeros(_REMEMBERED, classes))  # answers for the target, the last first
        self._next: tuple[Tensor, Tensor] | None = None  # mean and answers as they are once this step is made

    def forward(self, step: DomainStep) -> dict[str, Tensor]:
        weight = self.method.weight * grown(step.progress, self.method.warmup)
        losses = {"pseudo_labels": weight * self._target_loss(step)}
        if self.method.source_weight:
            losses["source_views"] = self.method.source_weight * self._source_loss(step)
        return losses

    def end_step(self, model: PretrainedModel) -> None:
        """The step is made, and its answers count."""
        if self._next is not None:
            self.source_mean.copy_(self._next[0])
            self.seen.copy_(self._next[1])
            self._next = None

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
        answers = step.target.outputs.detach().float().softmax(1)
        if not len(step.source) or not self.method.align:
            return answers, self.method.threshold
        source = step.source.outputs.detach().float().softmax(1)
        keep = torch.where(self.source_mean.sum() == 0, 0.0, _MOMENTUM)
        mean = keep * self.source_mean + (1 - keep) * source.mean(0)
        seen = torch.cat([answers, self.seen])[:_REMEMBERED]
        self._next = (mean, seen)
        return scaled(answers, class_scales(seen, mean)), self.method.threshold * source.amax(1).mean()


def class_scales(answers: Tensor, mean: Tensor) -> Tensor:
    """Factors c for which the answers p_ik c_k, made to sum to 1, have the given mean. (n, k), (k,) -> (k,).

    The column factors of Sinkhorn & Knopp, Concerning Nonnegative Matrices, 1967: c_k ← c_k m_k / mean_i of them. Rows
    of zeros are answers that are not there yet.
    """
    scales = torch.ones_like(mean)
    for _ in range(_SWEEPS):
        sums = scaled(answers, scales).sum(0)
        scales = scales * mean / (sums / sums.sum()).clamp(min=1e-6)
        scales = scales / scales.sum()
    return scales


def scaled(answers: Tensor, scales: Tensor) -> Tensor:
    """p_ik c_k, made to sum to 1. (n, k), (k,) -> (n, k)."""
    moved = answers * scales
    return moved / moved.sum(1, keepdim=True).clamp(min=1e-12)


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
