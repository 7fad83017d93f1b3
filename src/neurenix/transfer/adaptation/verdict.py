"""Whether adapting hurt, judged without target labels from the model before and after."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from ...errors import ConfigurationError, LabelMismatchError
from .gap import class_shares, neighbour_agreement, proxy_distance, share_distance, told_by_neighbours
from .selection import CRITERIA, Evidence
from .selection.expected_shares import believed_shares, can_tell_shares, expected_shares, tidiness
from .selection.guards import KEEPS_CLASSES, KEEPS_SOURCE

_MOST = 2000
_FOLDS = 5  # of the proxy A-distance, which needs as many samples of each domain
# Of a logistic regression over 176 adaptations of blobs by DANN, in units of label shift (docs/log.md).
_TORN, _CLUSTERING, _LIMIT = 1.5, 1.2, 0.35
# Of 800 adaptations of digits, texts and blobs (docs/log.md): shifts above the first leave neighbours little to tell.
_SHIFTED, _STILL_TOLD = 0.2, 0.85
_CRITERIA = ("im", "prior_im", "snd", "entropy", "atc", "class_ami", "dev", "source_error", "class_spread")


@final
@dataclass(frozen=True, kw_only=True)
class Verdict:
    """hurts: whether the model before adapting is probably the better one on the target. sentence: why, in words.

    evidence: what it was judged by:
        label_shift: total variation between the class shares of the source and those that BBSE expects in the target.
        torn: how many fewer of the neighbours, in the first model's features, are answered alike by the adapted model.
        clustering: gain in class_ami. risk: label_shift + 1.5 torn − 1.2 clustering, which hurts above 0.35.
        tidiness, told_before, told_after: where neighbours are known, how far the first model's answers follow groups
        of near samples, and how much of both models' answers those for near samples tell.
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


def judge_adaptation(
    before: Evidence, after: Evidence, *, keeps_source: bool = True, nearest: Tensor | None = None
) -> Verdict:
    """Compare the source's model with the adapted one, both on the same samples in the same order.

    keeps_source: a model that unlearned the source is harmed; False for one that normalises by the target's statistics,
    to which the source is the stranger. nearest: (m, 10), places of the target samples nearest to each of them for a
    model that neither the source nor an adaptation has trained, or None. With them, label shift is believed only where
    the first model's answers follow groups of near samples, and answers of which near ones tell less than they did of
    the first model's are taken for harm.

    At most 2,000 samples of each domain are looked at. It was measured on adaptations of which it is known whether they
    helped; what it misses, and where it is wrong, is told in docs/adaptation.md.

    Raises:
        ConfigurationError: the task is not multi_class.
        LabelMismatchError: the two are not of the same samples, or nearest is of others.
    """
    _check(before, after, nearest)
    first, second = before.capped(_MOST), after.capped(_MOST)
    if not second.is_finite:
        return Verdict(
            hurts=True, evidence={}, sentence="Adapting hurts: the adapted model's answers are NaN or infinite."
        )
    evidence = _gathered(first, second)
    if nearest is not None:
        evidence |= _told(before, after, nearest)
    reasons = _reasons(evidence, keeps_source, can_tell_shares(before, nearest))
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


def _told(before: Evidence, after: Evidence, nearest: Tensor) -> dict[str, float]:
    shares = believed_shares(before, nearest)
    entropy, old = float(torch.special.entr(shares).sum()), before.target_outputs.argmax(1)
    return {
        "tidiness": tidiness(old, nearest, len(shares)),
        "told_before": told_by_neighbours(old, nearest, len(shares), entropy),
        "told_after": told_by_neighbours(after.target_outputs.argmax(1), nearest, len(shares), entropy),
    }


def _distance(side: Evidence) -> float:
    """NaN where a domain has too few samples for it."""
    if min(len(side.source_features), len(side.target_features)) < _FOLDS:
        return math.nan
    return proxy_distance(side.source_features, side.target_features)


def _reasons(found: Mapping[str, float], keeps_source: bool, tells_shares: bool) -> list[str]:
    reasons = []
    if keeps_source and found["source_error_after"] > KEEPS_SOURCE.limit([found["source_error_before"]]):
        reasons.append(
            f"the source itself was unlearned (error {found['source_error_before']:.0%} before, "
            f"{found['source_error_after']:.0%} after)"
        )
    if found["class_spread_after"] < KEEPS_CLASSES.limit([found["class_spread_before"]]):
        reasons.append(
            f"the answers collapsed to fewer classes ({found['class_spread_before']:.1f} before, "
            f"{found['class_spread_after']:.1f} after)"
        )
    if found["risk"] > _LIMIT and tells_shares:
        reasons.append(
            f"the target seems to hold other shares of the classes than the source (label shift "
            f"{found['label_shift']:.2f}, about {found['expected_classes']:.1f} of {found['classes']:.0f} classes), "
            f"and {found['torn']:.0%} of neighbouring samples were torn apart"
        )
    shifted = tells_shares and found["label_shift"] > _SHIFTED
    if "told_before" in found and not shifted and found["told_after"] < _STILL_TOLD * found["told_before"]:
        reasons.append(
            f"what it answers for near samples tells less of its answers than before ({found['told_before']:.2f} "
            f"before, {found['told_after']:.2f} after)"
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


def _check(before: Evidence, after: Evidence, nearest: Tensor | None) -> None:
    if before.task != "multi_class" or after.task != "multi_class":
        raise ConfigurationError(f"a verdict is over classes; these models do {before.task} and {after.task}.")
    same = len(before.target_outputs) == len(after.target_outputs)
    if not same or not torch.equal(before.source_targets.cpu(), after.source_targets.cpu()):
        raise LabelMismatchError(
            "both models have to be asked for the same samples in the same order; these are "
            f"{len(before.source_targets)} and {len(before.target_outputs)} of the source and the target before, "
            f"{len(after.source_targets)} and {len(after.target_outputs)} after."
        )
    if nearest is not None and len(nearest) != len(before.target_outputs):
        raise LabelMismatchError(
            f"nearest is of {len(nearest)} samples of the target, and models were asked about "
            f"{len(before.target_outputs)}."
        )
