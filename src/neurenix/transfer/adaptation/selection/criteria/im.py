"""IM: sure of each sample, and of different classes over all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from .....metrics import TaskKind
from ..criterion import CRITERIA, Criterion, Evidence
from ._answers import binary_entropies, entropies, entropy


@CRITERIA.register("im", "information_maximisation")
@final
@dataclass(frozen=True, kw_only=True)
class IM(Criterion):
    """Mutual information of sample and predicted class on the target, of several labels their mean.

    Bridle, Heading & MacKay, Unsupervised Classifiers, Mutual Information and 'Phantom Targets', NIPS 1991; as a
    validator in Musgrave et al., Benchmarking Validation Methods for UDA, 2022. Known failure: it rewards spreading
    the target over all classes, also where some do not occur.
    """

    higher_is_better: ClassVar[bool] = True
    tasks: ClassVar[tuple[TaskKind, ...]] = ("multi_class", "multi_label")

    def compute(self, evidence: Evidence) -> float:
        """Of the target's outputs."""
        if evidence.task == "multi_label":
            return float(label_information(evidence.target_outputs))
        return float(class_information(evidence.target_outputs))


def class_information(outputs: Tensor) -> Tensor:
    """H(mean p) − mean H(p), in nats: 0 where all answers are the same … log k. logits (n, k) -> ()."""
    mean = outputs.double().softmax(1).mean(0)
    return (entropy(mean) - entropies(outputs).mean()).clamp(min=0)


def label_information(outputs: Tensor) -> Tensor:
    """The same of each label's yes or no, averaged over the labels: 0 … log 2. logits (n, k) -> ()."""
    yes = torch.sigmoid(outputs.double())
    return (binary_entropies(yes.mean(0)) - binary_entropies(yes).mean(0)).mean().clamp(min=0)
