"""Whether adapting hurt, judged without target labels from the model before and after."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch

from ...errors import ConfigurationError, LabelMismatchError
from .gap import class_shares, neighbour_agreement, proxy_distance, share_distance
from .selection import CRITERIA, Evidence
from .selection.expected_shares import expected_shares

_MOST = 2000
_FOLDS = 5  # of the proxy A-distance, which needs as many samples of each domain
# Of a logistic regression over 176 adaptations of blobs by DANN, in units of label shift (docs/log.md).
_TORN, _CLUSTERING, _LIMIT = 1.5, 1.2, 0.35
_LOST_SOURCE, _KEPT_CLASSES = 0.05, 0.5  # as in selection/guards.py
_CRITERIA = ("im", "prior_im", "snd", "entropy", "atc", "class_ami", "dev", "source_error", "class_spread")


@final
@dataclass(frozen=True, kw_only=True)
class Verdict:
    """hurts: whether the model before adapting is probably the better one on the target. sentence: why, in words.

    evidence: what it was judged by:
        label_shift: total variation between the class shares of the source and those that BBSE expects in the target.
        torn: how many fewer of the neighbours, in the first model's features, are answered alike by the adapted model.
        clustering: gain in class_ami. risk: label_shift + 1.5 torn − 1.2 clustering, which hurts above 0.35.
        agreement: share of target samples that both models answer alike. shares_before, shares_after: total variation
        between the shares of predicted classes and those that BBSE expects.
        distance_before, distance_after: proxy A-distances of the domains' features, 0 … 2; told and not judged by.
        a criterion's name with _before and _after: see CRITERIA.
    """

    hurts: bool
    evidence: Mapping[str, float]
    sentence: str

    def __str__(self) -> str:
        return self.sentence


def judge_adaptation(before: Evidence, after: Evidence, *, keeps_source: bool = True) -> Verdict:
    """Compare the source's model with the adapted one, both on the same samples in the same order.

    keeps_source: a model that unlearned the source is harmed; False for one that normalises by the target's statistics,
    to which the source is the stranger.

    At most 2,000 samples of each domain are looked at. It was measured on adaptations by DANN of which it is known
    whether they helped, and misses harm that comes without label shift: see docs/log.md.

    Raises:
        ConfigurationError: the task is not multi_class.
        LabelMismatchError: the two are not of the same samples.
    """
    _check(before, after)
    first, second = before.capped(_MOST), after.capped(_MOST)
    if not second.is_finite:
        return Verdict(
            hurts=True, evidence={}, sentence="Adapting hurts: the adapted model's answers are NaN or infinite."
        )
    evidence = _gathered(first, second)
    reasons = _reasons(evidence, keeps_source)
    return Verdict(hurts=bool(reasons), evidence=evidence, sentence=_sentence(reasons, evidence))


def _gathered(before: Evidence, after: Evidence) -> dict[str, float]:
    expected = expected_shares(before)
    classes, old, new = len(expected), before.target_outputs.argmax(1), after.target_outputs.argmax(1)
    found = {
        "label_shift": share_distance(expected.numpy(), class_shares(before.source_targets, classes)),
        "torn": neighbour_agreement(before.target_features, old) - neighbour_agreement(before.target_features, new),
        "agreement": float((old == new).double().mean()),
        "shares_before": share_distance(expected.numpy(), class_shares(old, classes)),
        "shares_after": share_distance(expected.numpy(), class_shares(new, classes)),
        "expected_classes": float(torch.special.entr(expected).sum().exp()),
        "classes": float(classes),
    }
    for name, side in (("before", before), ("after", after)):
        known = Evidence(**{**vars(side), "expected_shares": expected})
        found |= {f"{criterion}_{name}": CRITERIA[criterion]().score(known) for criterion in _CRITERIA}
        found[f"distance_{name}"] = _distance(side)
    found["clustering"] = found["class_ami_after"] - found["class_ami_before"]
    found["risk"] = found["label_shift"] + _TORN * found["torn"] - _CLUSTERING * found["clustering"]
    return found


def _distance(side: Evidence) -> float:
    """NaN where a domain has too few samples for it."""
    if min(len(side.source_features), len(side.target_features)) < _FOLDS:
        return math.nan
    return proxy_distance(side.source_features, side.target_features)


def _reasons(found: Mapping[str, float], keeps_source: bool) -> list[str]:
    reasons = []
    if keeps_source and found["source_error_after"] > found["source_error_before"] + _LOST_SOURCE:
        reasons.append(
            f"the source itself was unlearned (error {found['source_error_before']:.0%} before, "
            f"{found['source_error_after']:.0%} after)"
        )
    if found["class_spread_after"] < _KEPT_CLASSES * found["class_spread_before"]:
        reasons.append(
            f"the answers collapsed to fewer classes ({found['class_spread_before']:.1f} before, "
            f"{found['class_spread_after']:.1f} after)"
        )
    knows_the_task = found["source_error_before"] < (1 - 1 / found["classes"]) / 2  # else it cannot tell the shares
    if found["risk"] > _LIMIT and knows_the_task:
        reasons.append(
            f"the target seems to hold other shares of the classes than the source (label shift "
            f"{found['label_shift']:.2f}, about {found['expected_classes']:.1f} of {found['classes']:.0f} classes), "
            f"and {found['torn']:.0%} of neighbouring samples were torn apart"
        )
    return reasons


def _sentence(reasons: list[str], found: Mapping[str, float]) -> str:
    distances = f"both models agree on {found['agreement']:.0%} of the target"
    if not math.isnan(found["distance_before"]):
        distances = (
            f"proxy A-distance {found['distance_before']:.2f} before, {found['distance_after']:.2f} after; {distances}"
        )
    if not reasons:
        return f"No sign that adapting hurt ({distances})."
    return (
        f"Adapting probably hurt: {'; '.join(reasons)}. The model of the source alone is the safer one; for targets "
        f"without some of the classes there are methods with weights for them ({distances})."
    )


def _check(before: Evidence, after: Evidence) -> None:
    if before.task != "multi_class" or after.task != "multi_class":
        raise ConfigurationError(f"a verdict is over classes; these models do {before.task} and {after.task}.")
    same = len(before.target_outputs) == len(after.target_outputs)
    if not same or not torch.equal(before.source_targets.cpu(), after.source_targets.cpu()):
        raise LabelMismatchError(
            "both models have to be asked for the same samples in the same order; these are "
            f"{len(before.source_targets)} and {len(before.target_outputs)} of the source and the target before, "
            f"{len(after.source_targets)} and {len(after.target_outputs)} after."
        )
