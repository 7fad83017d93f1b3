"""AdaBN: batch norms normalise by the target's statistics; nothing is trained."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ....data import Batch
from ....errors import ConfigurationError, EmptyDatasetError
from ....metrics import TaskKind
from ....models import PretrainedModel
from ....nn import evaluating
from ...tuner import Tuner
from ..method import METHODS, Way, WholeMethod
from ._norms import batch_norms


@METHODS.register("adabn")
@final
@dataclass(frozen=True, kw_only=True)
class AdaBN(WholeMethod):
    """Each batch norm's mean and variance become those of what enters it when target samples pass through the model.

    Li et al., Adaptive Batch Normalization for Practical Domain Adaptation, Pattern Recognition 2018, algorithm 1.
    Within the pass each batch is normalised by its own statistics, as in training; what is kept are mean and unbiased
    variance over all target samples, whatever the sizes of the batches. Norms of layers that training keeps frozen are
    no exception, since it is not trained. A batch of one sample is normalised by the
    statistics of the batches before it.
    """

    family: ClassVar[str] = "test_time"
    uses_source: ClassVar[bool] = False
    by_target: ClassVar[bool] = True
    tasks: ClassVar[tuple[TaskKind, ...]] = ("multi_class", "multi_label", "regression")

    def check_model(self, tuner: Tuner) -> None:
        """It has batch norms."""
        check_has_batch_norms(tuner.model, batch_norms(tuner.model))

    def adapt(self, tuner: Tuner, way: Way) -> None:
        """See apply."""
        self.apply(tuner.model, way.target_batches)

    def apply(self, model: PretrainedModel, batches: Callable[[], Iterable[Batch]]) -> None:
        """Set the statistics in place; modes, momenta and all weights stay as they are.

        batches: gives the target's batches, on the model's device. Raises ConfigurationError for a model without batch
        norms and EmptyDatasetError for no samples; the statistics are then, and after any other error, as they were.
        """
        norms = batch_norms(model)
        check_has_batch_norms(model, norms)
        before = {norm: {name: buffer.clone() for name, buffer in norm.named_buffers()} for norm in norms.values()}
        try:
            pooled = _pass(model, list(norms.values()), batches)
        except BaseException:
            _write(before)
            raise
        _write({norm: {**before[norm], **statistics.as_buffers(norm)} for norm, statistics in pooled.items()})


@final
class Pooled:
    """Mean and variance of each channel over all values so far, kept in float64 on the CPU."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Tensor = torch.zeros((), dtype=torch.float64)
        self.squares: Tensor = torch.zeros((), dtype=torch.float64)

    def take(self, values: Tensor) -> None:
        """Take in more values, (n, channels, …).

        Chan, Golub & LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979,
        equation 2.1: of two sets, S = S_a + S_b + δ² n_a n_b / (n_a + n_b), δ the difference of their means.
        """
        wide = values.detach() if values.dtype == torch.float64 else values.detach().float()
        by_channel = wide.transpose(0, 1).flatten(1)
        count = by_channel.shape[1]
        variance, mean = torch.var_mean(by_channel, dim=1, correction=0)
        variance, mean = variance.to("cpu", torch.float64), mean.to("cpu", torch.float64)
        total, gap = self.count + count, mean - self.mean
        self.squares = self.squares + variance * count + gap.square() * self.count * count / total
        self.mean, self.count = self.mean + gap * count / total, total

    def as_buffers(self, norm: _BatchNorm) -> dict[str, Tensor]:
        """As the norm keeps them, the variance unbiased."""
        variance = self.squares / max(1, self.count - 1)
        like = norm.get_buffer("running_mean")
        return {"running_mean": self.mean.to(like), "running_var": variance.to(like)}


def check_has_batch_norms(model: PretrainedModel, norms: Mapping[str, _BatchNorm]) -> None:
    """Raise ConfigurationError where there are none that keep statistics."""
    if not norms:
        found = sorted({type(part).__name__ for part in model.modules() if "Norm" in type(part).__name__})
        raise ConfigurationError(
            f"adabn sets the statistics of batch norms, and {model.name} has none that keeps any (its norms: "
            f"{', '.join(found) or 'none'}). Take 'coral' or 'dann', which need no batch norms."
        )


@torch.no_grad()
def _pass(
    model: PretrainedModel, norms: list[_BatchNorm], batches: Callable[[], Iterable[Batch]]
) -> dict[_BatchNorm, Pooled]:
    """Everything in evaluation mode but the batch norms. A norm that nothing reached is left out."""
    pooled = {norm: Pooled() for norm in norms}
    with evaluating(model), _watched(pooled):
        for batch in batches():
            many = len(batch) > 1
            for norm in norms:
                norm.training = many
            if not many:
                _write({norm: seen.as_buffers(norm) for norm, seen in pooled.items() if seen.count})
            model(batch.inputs)
    reached = {norm: seen for norm, seen in pooled.items() if seen.count > 1}
    if not reached:
        raise EmptyDatasetError(
            "adabn saw no target samples to take statistics of; give at least two samples, and more are better."
        )
    return reached


@contextlib.contextmanager
def _watched(pooled: Mapping[_BatchNorm, Pooled]) -> Iterator[None]:
    """What enters the norms inside the block is taken in; their modes are evaluation's again after it."""

    def take(norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        assert isinstance(norm, _BatchNorm)
        pooled[norm].take(inputs[0])

    hooks = [norm.register_forward_pre_hook(take) for norm in pooled]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for norm in pooled:
            norm.training = False


def _write(statistics: Mapping[_BatchNorm, Mapping[str, Tensor]]) -> None:
    for norm, values in statistics.items():
        for name, value in values.items():
            norm.get_buffer(name).copy_(value)
