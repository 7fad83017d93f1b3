"""Finetuner's arguments as one record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ..errors import ConfigurationError
from ..models import PretrainedModel
from .arguments import as_list
from .fit_settings import FitSettings
from .strategies import STRATEGIES, Job, Plan


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings(FitSettings):
    """See Finetuner, which documents each of them."""

    freeze_layers: list[str]
    layer_learning_rates: Mapping[str, float] | float | None
    strategy: str
    unfreeze_by: str
    norm_statistics: str

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Self:
        """Finetuner's arguments, with what None stands for."""
        frozen = as_list(arguments["freeze_layers"])
        strategy = STRATEGIES.canonical(arguments["strategy"] or ("partial" if frozen else "full"))
        return super().of({**arguments, "freeze_layers": frozen, "strategy": strategy})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unfreeze_by not in ("epoch", "plateau"):
            raise ConfigurationError(f"unfreeze_by={self.unfreeze_by!r}; possible: 'epoch', 'plateau'.")
        if self.norm_statistics not in ("auto", "batch", "pretrained"):
            raise ConfigurationError(
                f"norm_statistics={self.norm_statistics!r}; possible: 'auto', 'batch', 'pretrained'."
            )

    def plan(self, model: PretrainedModel, frozen: tuple[str, ...], samples: int, classes: int, epochs: int) -> Plan:
        """What the strategy makes of a job. frozen: layers that stay frozen in any case."""
        job = Job(
            model=model, frozen=frozen, samples=samples, classes=classes, epochs=epochs, unfreeze_by=self.unfreeze_by
        )
        return STRATEGIES[self.strategy](job)

    def keeps_statistics(self, solved_head: bool) -> bool:
        """Whether batch norms keep theirs. solved_head: the head was solved on the body's pretrained features."""
        return self.norm_statistics == "pretrained" or (self.norm_statistics == "auto" and solved_head)
