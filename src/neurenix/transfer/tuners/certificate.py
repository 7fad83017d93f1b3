"""Does a merged model give what the tuned one gives? Tried on real samples before it takes its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ...data import Batch
from ...errors import MergeError
from ...models import PretrainedModel
from ...nn import evaluating

_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8}
_ROUGH = 2e-2  # of numbers with three digits


@dataclass(frozen=True)
class MergeCertificate:
    """difference: the largest between an answer of the tuned and of the merged model, as a share of the largest answer.

    samples: of the probe. dtype: of the weights. tolerance: what the difference had to stay below.
    """

    difference: float
    samples: int
    dtype: str
    tolerance: float

    def __str__(self) -> str:
        return (
            f"merged: on {self.samples} samples in {self.dtype} the answers differ by {self.difference:.1e} of the "
            f"largest at most (allowed {self.tolerance:.0e})"
        )


def certify(tuned: PretrainedModel, merged: PretrainedModel, probe: Batch, tolerance: float | None) -> MergeCertificate:
    """Compare the answers in eval mode. Raises MergeError where they differ by more than the tolerance."""
    dtype = next(tuned.trunk.parameters()).dtype
    allowed = _TOLERANCE.get(dtype, _ROUGH) if tolerance is None else tolerance
    expected, found = _answers(tuned, probe.inputs), _answers(merged, probe.inputs)
    difference = float((found - expected).abs().max() / expected.abs().max().clamp(min=torch.finfo(torch.float32).tiny))
    if not difference <= allowed:
        raise MergeError(
            f"the merged model's answers for {len(probe)} samples differ from the tuned one's by {difference:.1e} of "
            f"the largest, more than {allowed:.0e}; nothing was changed. Merge in float32, or allow more: tolerance=…."
        )
    return MergeCertificate(difference, len(probe), str(dtype).removeprefix("torch."), allowed)


@torch.no_grad()
def _answers(model: PretrainedModel, inputs: Any) -> torch.Tensor:
    with evaluating(model):
        answers: torch.Tensor = model(inputs).float()
    return answers
