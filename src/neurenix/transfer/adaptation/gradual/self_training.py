"""Gradual self-training: from the source to the target in steps that are small enough to trust one's own labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from ....errors import ConfigurationError
from ...tuner import Tuner
from ..method import METHODS, Way, WholeMethod
from .ordering import ORDERS
from .pseudo_labels import LABELS


@METHODS.register("gradual", "gradual_self_training")
@final
@dataclass(frozen=True, kw_only=True)
class GradualSelfTraining(WholeMethod):
    """Label the next window with the model trained on the last one, drop what it is unsure of, train on the rest.

    Kumar, Ma & Liang, Understanding Self-Training for Gradual Domain Adaptation, ICML 2020, section 3 and 5. It needs
    regularisation (section 4.2): give the tuner weight decay or the model dropout.

    trim: share of each window, the least confident, that is left out. labels: "hard" or "soft", see LABELS. epochs: of
    training on each window. window: samples per window, of a pool twice as many where they agree; None takes each
    intermediate domain whole, and a 25th of a pool. order: of a pool, a name in ORDERS. agreeing: of a pool's next
    window, the most that may be lost on the way there and back (cycle_disagreement, 0 to 1) before a shorter one is
    tried.
    largest_mixing, largest_step, largest_disagreement: where the way is not gradual: how much of a window is a mixture
    of source and target, what share of the whole way one window moves, what is lost there and back. at_break: "stop"
    there, with the model of the last good window, or "go_on"; both with a NotGradualWarning.
    """

    family: ClassVar[str] = "gradual"
    walks: ClassVar[bool] = True
    trim: float = 0.1
    labels: str = "hard"
    epochs: int = 10
    window: int | None = None
    order: str = "geodesic"
    agreeing: float = 0.1
    largest_mixing: float = 0.5
    largest_step: float = 0.75
    largest_disagreement: float = 0.5
    at_break: str = "stop"

    def check(self) -> None:
        """Shares have to be shares, names have to exist."""
        LABELS.canonical(self.labels)
        ORDERS.canonical(self.order)
        if not 0 <= self.trim < 1:
            raise ConfigurationError(f"trim={self.trim}; it is the share that is left out, at least 0 and below 1.")
        if self.epochs < 1 or (self.window is not None and self.window < 1):
            raise ConfigurationError(f"epochs={self.epochs}, window={self.window}; both are at least 1.")
        for name in ("agreeing", "largest_mixing", "largest_disagreement"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigurationError(f"{name}={getattr(self, name)}; it is a share, from 0 to 1.")
        if self.at_break not in ("stop", "go_on"):
            raise ConfigurationError(f"at_break={self.at_break!r}; possible: 'stop', 'go_on'.")

    def adapt(self, tuner: Tuner, way: Way) -> None:
        """See gradual.adapt, which gives the path too."""
        from .adapt import adapt  # which is written for this record

        adapt(tuner, self, way.source, way.target, way.intermediate, way.pool, way.batch_size, way.num_workers)
