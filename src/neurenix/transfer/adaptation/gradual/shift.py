"""How gradual is a way from source to target? Measured on features, without labels of the domains on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ....training import classification_head, discriminant_head

_SAMPLES = 4  # of each domain: two to learn from, two to measure
_LARGEST_SPREAD = 0.25  # two standard deviations from the source's mean to the target's


@dataclass(frozen=True)
class Positions:
    """Where samples are on the way: 0 is the source's mean and 1 the target's.

    spread: variance of the positions within source and target, the mean of both. windows: (n,) positions of each.
    """

    spread: float
    windows: tuple[Tensor, ...]

    @property
    def tell(self) -> bool:
        """Whether source and target lie far enough apart on a line for places between them to mean anything.

        Domains that differ otherwise, in what a turn does to classes around one centre say, are not seen by a line.
        """
        return self.spread <= _LARGEST_SPREAD  # not a number where they are the same

    @property
    def means(self) -> list[float]:
        """Mean position of each window."""
        return [float(window.mean()) for window in self.windows]


def positions(source: Tensor, target: Tensor, windows: Sequence[Tensor]) -> Positions:
    """The one direction in which source and target differ most (Fisher's), and where samples are along it.

    Half of the source and target gives the direction and the other half its scale, then the other way round, so that a
    direction that fits by chance has no weight. source: (n, d), target: (m, d), windows: (·, d) each.
    """
    found = [_half_positions(source, target, windows, half) for half in (0, 1)]
    merged = tuple((one + other) / 2 for one, other in zip(found[0].windows, found[1].windows, strict=True))
    return Positions((found[0].spread + found[1].spread) / 2, merged)


def _half_positions(source: Tensor, target: Tensor, windows: Sequence[Tensor], half: int) -> Positions:
    known = torch.cat([source[half::2], target[half::2]])
    domains = torch.cat([torch.zeros(len(source[half::2])), torch.ones(len(target[half::2]))]).long()
    weight, _ = discriminant_head(known, domains, 2)
    direction = weight[1] - weight[0]
    starts, ends = source[1 - half :: 2].double() @ direction, target[1 - half :: 2].double() @ direction
    way = ends.mean() - starts.mean()
    spread = float((starts.var() + ends.var()) / 2 / way**2)
    return Positions(spread, tuple((window.double() @ direction - starts.mean()) / way for window in windows))


def mixing(window: Tensor, spread: float) -> float:
    """How much of a window is a mixture of source and target rather than a domain between them: 0 to 1.

    A share m of target samples among source samples has the mean m and, beside the spread within domains, the variance
    m (1 - m); a domain at m has none of it. Kumar, Ma & Liang, ICML 2020, section 3, need each sample to move by little
    (W∞ < 1 / R); in mixtures few samples move, but all the way, and self-training gains nothing (33.5 % for 87.9 %,
    section 5.3). window: (n,) positions. spread: see Positions.
    """
    mean = min(max(float(window.mean()), 0.0), 1.0)
    between = mean * (1 - mean)
    excess = float(window.var()) - spread
    return min(max(excess / between, 0.0), 1.0) if between > _EDGE and len(window) > 1 else 0.0


_EDGE = 0.09  # m (1 - m) within a tenth of the way: too near to an end to tell


def cycle_disagreement(
    current: Tensor, current_labels: Tensor, following: Tensor, following_labels: Tensor, num_classes: int
) -> float:
    """How much of what is known of a window is lost on the way to the next one and back: 0 nothing, 1 as by chance.

    A linear head is solved on the next window under its pseudo-labels and asked for those of the current one, the
    cycle of Chen & Chao, NeurIPS 2021, section 4.2. The share of other answers is compared with that of a head that is
    solved on the current window itself, each sample left out, and with guessing the most frequent class.
    current: (n, d), current_labels: (n,), following: (m, d), following_labels: (m,) class numbers.
    """
    back = classification_head(following, following_labels, num_classes)
    answers = (current.double() @ back.weight.T + back.bias).argmax(1)
    lost = _share_of_others(answers, current_labels)
    at_home = _share_of_others(
        classification_head(current, current_labels, num_classes).left_out.argmax(1), current_labels
    )
    by_chance = 1 - float(torch.bincount(current_labels).max()) / len(current_labels)
    return min(max((lost - at_home) / max(by_chance - at_home, 1e-9), 0.0), 1.0) if by_chance > at_home else 0.0


def _share_of_others(answers: Tensor, labels: Tensor) -> float:
    return float((answers != labels).double().mean())


def enough_samples(count: int) -> bool:
    """Whether a domain has enough samples for its place to be measured."""
    return count >= _SAMPLES
