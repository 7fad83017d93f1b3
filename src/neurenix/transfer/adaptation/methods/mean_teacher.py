"""MeanTeacher: the model, its features disturbed, should answer as the average of its past weights does."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ....errors import ConfigurationError
from ....models import PretrainedModel
from ...heads._starts import last_linear
from ..method import METHODS, DomainStep, Sizes, Term, TermMethod
from ._aside import AsideTerm
from ._information import marginal_entropy
from ._nothing import nothing
from ._settings import check_at_least_zero, check_share


@METHODS.register("mean_teacher")
@final
@dataclass(frozen=True, kw_only=True)
class MeanTeacher(TermMethod):
    """A teacher, whose weights are a moving average of the model's, answers for target samples, and the model follows.

    Tarvainen & Valpola, Mean Teachers Are Better Role Models, NeurIPS 2017, equations 1 and 2; for domains French,
    Mackiewicz & Fisher, Self-Ensembling for Visual Domain Adaptation, ICLR 2018, whose confidence threshold is here.
    What disturbs the student is dropout on the features (beside the model's own), and not a change of the samples:
    so it works for any kind of sample, and frozen layers run once. Views of the samples are what FixMatch makes.

    weight: of the loss. balance: weight of the entropy of the student's mean answer, which is held up so that not one
    class takes all (section 3.4 there); 0 where the target's classes are not about as frequent as each other.
    decay: of the average; in step t it is at most 1 − 1/(t + 1), as there. drop: share of features that is dropped.
    threshold: least probability of the teacher's answer that is followed. rampup: share of the steps in which the
    weights grow from 0, as exp(−5 (1 − x)²).
    """

    family: ClassVar[str] = "self_training"
    weight: float = 3.0
    balance: float = 1.0
    decay: float = 0.99
    drop: float = 0.5
    threshold: float = 0.0
    rampup: float = 0.3

    def check(self) -> None:
        """All but the weights are shares."""
        check_at_least_zero("weight", self.weight)
        check_at_least_zero("balance", self.balance)
        check_share("decay", self.decay, below_one=True)
        check_share("drop", self.drop, below_one=True)
        check_share("threshold", self.threshold)
        check_share("rampup", self.rampup)

    def term(self, sizes: Sizes) -> Term:
        """Nothing that learns; it remembers the average of every weight that does."""
        return _Term(self)


@final
class _Term(AsideTerm):
    """Buffers: steps, and the teacher's weights under their names in the model, "/" for "."."""

    steps: Tensor

    def __init__(self, method: MeanTeacher) -> None:
        super().__init__()
        self.method = method
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self._student: list[PretrainedModel] = []  # in a list, so that it is no part of the term
        self._is_checked = False

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *arguments: Any) -> None:
        for key, value in state_dict.items():
            if key.startswith(prefix) and key.removeprefix(prefix) not in self._buffers:
                self.register_buffer(key.removeprefix(prefix), torch.empty_like(value, device=self.steps.device))
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def begin(self, model: PretrainedModel) -> None:
        """Remember whose weights these are; the teacher begins as the model is after the first step."""
        super().begin(model)
        self._student = [model]

    def forward(self, step: DomainStep) -> dict[str, Tensor]:
        method, target = self.method, step.target
        if not len(target):
            return {"consistency": nothing(target)}
        teacher = self._teacher(step)
        student = self._classified(target.features, target.outputs)
        strength = risen(step.progress, method.rampup)
        losses = {"consistency": method.weight * strength * consistency(student, teacher, method.threshold)}
        if method.balance:
            losses["balance"] = -method.balance * strength * marginal_entropy(student)
        return losses

    @torch.no_grad()
    def end_step(self, model: PretrainedModel) -> None:
        """Take the weights into the average; one that learns only from now on begins with its value."""
        decay = min(self.method.decay, 1 - 1 / (int(self.steps) + 1))
        for name, parameter in model.named_parameters():
            average = self._buffers.get(_buffer_of(name))
            if average is not None:
                average.lerp_(parameter, 1 - decay)
            elif parameter.requires_grad:
                self.register_buffer(_buffer_of(name), parameter.detach().clone())
        self.steps += 1

    @torch.no_grad()
    def _teacher(self, step: DomainStep) -> Tensor:
        """The teacher's logits (n, k) for target samples. Before the first step is made it is the model itself."""
        if len(self._buffers) == 1:
            return step.target.outputs.detach()
        with self._as_teacher():
            return self.ask_aside(step, step.target.inputs, "target")[1].detach()

    def _classified(self, features: Tensor, outputs: Tensor) -> Tensor:
        """Logits (n, k) of the features with some of them dropped."""
        head = self._student[0].head
        classifier: nn.Module = last_linear(head) or head
        if not self._is_checked:
            _check_is_last(classifier, features, outputs)
            self._is_checked = True
        return classifier(functional.dropout(features, self.method.drop))

    @contextlib.contextmanager
    def _as_teacher(self) -> Iterator[None]:
        """The model has the teacher's weights inside the block.

        Only where tensors lie is exchanged, so a graph that was made before still finds the model's own. What autocast
        keeps of weights in fewer digits goes by the parameter, whosever values it has, and is let go of.
        """
        pairs = [
            (parameter, parameter.data, self.get_buffer(_buffer_of(name)))
            for name, parameter in self._student[0].named_parameters()
            if _buffer_of(name) in self._buffers
        ]
        try:
            for parameter, _, average in pairs:
                parameter.data = average
            torch.clear_autocast_cache()
            yield
        finally:
            for parameter, own, _ in pairs:
                parameter.data = own
            torch.clear_autocast_cache()


def consistency(student: Tensor, teacher: Tensor, threshold: float) -> Tensor:
    """1/n Σ_i 1(max q_i ≥ threshold) Σ_k (p_ik − q_ik)², p of the student and q of the teacher.

    Tarvainen & Valpola, NeurIPS 2017, equation 1; threshold: French et al., ICLR 2018, section 3.1. logits (n, k) both
    -> (), from 0 to 2.
    """
    answers = teacher.softmax(1)
    squares = (student.softmax(1) - answers).square().sum(1)
    return (squares * (answers.amax(1) >= threshold)).mean()


def risen(progress: float, rampup: float) -> float:
    """exp(−5 (1 − x)²), x the share that is done of the first `rampup` of the steps; 1 after them.

    Laine & Aila, Temporal Ensembling, ICLR 2017, section 2.
    """
    return math.exp(-5.0 * (1 - min(1.0, progress / rampup)) ** 2) if rampup else 1.0


def _buffer_of(parameter: str) -> str:
    return parameter.replace(".", "/")


def _check_is_last(classifier: nn.Module, features: Tensor, outputs: Tensor) -> None:
    """Raise ConfigurationError where the outputs are not what the last layer makes of the features."""
    with torch.no_grad():
        answers = classifier(features) if features.shape[1:] else outputs
        if answers.shape != outputs.shape or not torch.allclose(answers, outputs, rtol=1e-2, atol=1e-2, equal_nan=True):
            raise ConfigurationError(
                f"mean_teacher disturbs what enters the head's last layer, and something follows that {classifier!r}; "
                "take a head that ends with its linear layer, or another method ('fixmatch', 'shot')."
            )
