"""Forward passes of samples that predictions will never see."""

from __future__ import annotations

import abc

from torch import Tensor, nn

from ....models import PretrainedModel
from ..method import DomainStep, Inputs, Side, Term
from ..norms import kept_statistics
from ._norms import batch_norms


class AsideTerm(Term, abc.ABC):
    """A term that asks the model about changed samples.

    Batch norms that are trained normalise these by their own batch, and keep their running statistics, which are for
    samples as they come.
    """

    def __init__(self) -> None:
        super().__init__()
        self._norms: list[nn.Module] = []  # in a list, so that they are no part of the term

    def begin(self, model: PretrainedModel) -> None:
        """Remember the model's batch norms."""
        self._norms = list(batch_norms(model).values())

    def ask_aside(self, step: DomainStep, inputs: Inputs, domain: str) -> tuple[Tensor, Tensor]:
        """(features (n, d), outputs (n, k)) of changed samples of a domain, "source" or "target"."""
        with kept_statistics(self._norms):
            return step.ask(inputs, domain)

    @staticmethod
    def sides(step: DomainStep, domains: str) -> list[tuple[str, Side]]:
        """The sides of a step that have samples, by name; domains: "both" or "target"."""
        sides = {"source": step.source, "target": step.target}
        return [(name, side) for name, side in sides.items() if len(side) and domains in ("both", name)]
