"""ETA: Tent on the samples that are worth it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional

from ....models import PretrainedModel
from ..method import METHODS, DomainStep, Sizes, Term, TermMethod
from ._information import entropies
from ._nothing import nothing
from ._settings import check_positive, check_share


@METHODS.register("eta", "eata")
@final
@dataclass(frozen=True, kw_only=True)
class ETA(TermMethod):
    """Tent, where unsure samples count nothing, sure ones more, and ones that are answered as most are nothing.

    Niu et al., Efficient Test-Time Model Adaptation without Forgetting, ICML 2022, equations 2 to 5; of EATA the part
    without the regulariser of equation 6, which asks for source samples.

    margin: entropy above which a sample counts nothing, as a share of log(classes). similarity: cosine to the moving
    mean answer above which a sample is one of many, in units of 1 / √classes, which a sure answer has to an even mean;
    1.5 is about the 0.05 for 1000 classes and the 0.4 for 10 there. momentum: of the moving mean answer. weight: of
    the loss.
    """

    family: ClassVar[str] = "test_time"
    uses_source: ClassVar[bool] = False
    trains: ClassVar[str] = "norms"
    weight: float = 1.0
    margin: float = 0.4
    similarity: float = 1.5
    momentum: float = 0.9

    def check(self) -> None:
        """Margin and momentum are shares."""
        check_positive("weight", self.weight)
        check_share("margin", self.margin)
        check_positive("similarity", self.similarity)
        check_share("momentum", self.momentum, below_one=True)

    def term(self, sizes: Sizes) -> Term:
        """Nothing that learns; it remembers the mean answer."""
        return _Term(self, sizes.outputs)


@final
class _Term(Term):
    mean_answer: Tensor
    steps: Tensor

    def __init__(self, method: ETA, classes: int) -> None:
        super().__init__()
        self.method = method
        self.register_buffer("mean_answer", torch.zeros(classes))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self._answers: Tensor | None = None  # of this step, taken in once the step is made

    def forward(self, step: DomainStep) -> dict[str, Tensor]:
        if not len(step.target):
            return {"entropy": nothing(step.target)}
        logits = step.target.outputs
        answers = logits.detach().softmax(1)
        alike = functional.cosine_similarity(answers, self.mean_answer.expand_as(answers), dim=1)
        rare = (alike < self.method.similarity / math.sqrt(logits.shape[1])) | (self.steps == 0)
        weights = reliability(logits, self.method.margin) * rare
        chosen = (weights > 0).to(answers.dtype)
        self._answers = torch.stack([(answers * chosen[:, None]).sum(0), chosen.sum().expand(answers.shape[1])])
        loss = (weights * entropies(logits)).sum() / chosen.sum().clamp(min=1)
        return {"entropy": self.method.weight * loss}

    def end_step(self, model: PretrainedModel) -> None:
        """Take the answers that counted into the moving mean."""
        if self._answers is None:
            return
        total, count = self._answers
        self._answers = None
        keep = torch.where(self.steps == 0, 0.0, self.method.momentum)
        new = keep * self.mean_answer + (1 - keep) * total / count.clamp(min=1)
        self.mean_answer.copy_(torch.where(count > 0, new, self.mean_answer))
        self.steps += (count[0] > 0).long()


def reliability(logits: Tensor, margin: float) -> Tensor:
    """exp(E₀ − H(p_i)) where H(p_i) < E₀ = margin · log k, else 0. (n, k) -> (n,), without a gradient.

    Niu et al., ICML 2022, equation 3.
    """
    bound, unsure = margin * math.log(logits.shape[1]), entropies(logits.detach())
    return (bound - unsure).exp() * (unsure < bound)
