"""FixMatch: what the model is sure of in a sample, it should say of a changed view of it too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor
from torch.nn import functional

from ..method import METHODS, DomainStep, Sizes, Term, TermMethod
from ._aside import AsideTerm
from ._nothing import nothing
from ._settings import check_at_least_zero, check_share
from ._views import strong_view


@METHODS.register("fixmatch")
@final
@dataclass(frozen=True, kw_only=True)
class FixMatch(TermMethod):
    """Confident answers for target samples are the labels of strongly changed views of them.

    Sohn et al., FixMatch, NeurIPS 2020, equation 4. The weak view is the sample as the data give it, with what
    augmentation they have, so that its answer costs no pass of its own. The views are made of the samples themselves,
    so no layers' answers can be stored: an image moved after the first layers is not what those make of a moved image.

    weight: of the loss. threshold: least probability of a class that is taken for the label. warmup: share of the steps
    in which the weight grows from 0. mirror: whether an image may be mirrored, which letters and digits may not.
    """

    family: ClassVar[str] = "self_training"
    reads_inputs: ClassVar[str | None] = "strong views are made of the samples themselves"
    weight: float = 1.0
    threshold: float = 0.9
    warmup: float = 0.1
    mirror: bool = False

    def check(self) -> None:
        """Threshold and warmup are shares."""
        check_at_least_zero("weight", self.weight)
        check_share("threshold", self.threshold)
        check_share("warmup", self.warmup)

    def term(self, sizes: Sizes) -> Term:
        """Nothing that learns."""
        return _Term(self)


@final
class _Term(AsideTerm):
    def __init__(self, method: FixMatch) -> None:
        super().__init__()
        self.method = method

    def forward(self, step: DomainStep) -> dict[str, Tensor]:
        method, target = self.method, step.target
        if not len(target):
            return {"pseudo_labels": nothing(target)}
        _, outputs = self.ask_aside(step, strong_view(target.inputs, method.mirror))
        loss = pseudo_label_loss(outputs, target.outputs, method.threshold)
        return {"pseudo_labels": method.weight * grown(step.progress, method.warmup) * loss}


def pseudo_label_loss(strong: Tensor, weak: Tensor, threshold: float) -> Tensor:
    """1/n Σ_i 1(max p_i ≥ threshold) · −log q_i[argmax p_i], p of the weak views and q of the strong ones, in nats.

    Sohn et al., FixMatch, NeurIPS 2020, equation 4. strong, weak: logits (n, k) -> (). No gradient reaches `weak`.
    """
    confidence, labels = weak.detach().softmax(1).max(1)
    losses = functional.cross_entropy(strong, labels, reduction="none")
    return (losses * (confidence >= threshold)).mean()


def grown(progress: float, warmup: float) -> float:
    """From 0 to 1 in the first `warmup` of the steps, and 1 after them."""
    return min(1.0, progress / warmup) if warmup else 1.0
