"""What a method of domain adaptation is: a flat record of settings, and the term that it adds to the source's loss."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...data import Batch
from ...metrics import TaskKind
from ...models import PretrainedModel
from ...registry import Registry
from .. import flat_record
from ..flat_record import FlatRecord, Record
from ..tuner import Tuner

Inputs = Tensor | Mapping[str, Tensor]
Look = Callable[[], tuple[Tensor, Tensor, Tensor]]  # features (m, d), outputs (m, k), places in the dataset (m,)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of what a term sees. features: numbers that enter the last linear layer. outputs: of the head."""

    features: int
    outputs: int


@dataclass(frozen=True, kw_only=True)
class Side:
    """One domain's samples of a batch; there may be none of them.

    inputs: as the model, or what is left of it above the frozen prefix, reads them. features: (n, d), what enters the
    last linear layer. outputs: (n, k), logits or values. targets: of the source, as the loss takes them; None of the
    target. places: (n,), of the samples in their own dataset.
    """

    inputs: Inputs
    features: Tensor
    outputs: Tensor
    targets: Tensor | None
    places: Tensor

    def __len__(self) -> int:
        return len(self.features)


@dataclass(frozen=True, kw_only=True)
class DomainStep:
    """What a term sees of one step. Everything is float32 and on the model's device, with the graph to the weights.

    progress: share of the adaptation's steps that are done, in [0, 1).
    ask: inputs, "source" or "target" -> (features (n, d), outputs (n, k)), another forward pass of the model in
        training, by the batch norms of that domain where each has its own.
    compare: (outputs, targets) -> the task's loss (), with its class weights and smoothing.
    """

    source: Side
    target: Side
    progress: float
    ask: Callable[[Inputs, str], tuple[Tensor, Tensor]]
    compare: Callable[[Tensor, Tensor], Tensor] = functional.cross_entropy


class Term(nn.Module, abc.ABC):
    """What a method adds to the loss; what it trains beside the model are parameters of its own, kept in checkpoints.

    Whatever else it remembers from step to step is a buffer, of any size, so that a killed run goes on with it.
    """

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *arguments: Any) -> None:
        for name, buffer in self._buffers.items():
            saved = state_dict.get(prefix + name)
            if buffer is not None and saved is not None and saved.shape != buffer.shape:
                self._buffers[name] = torch.empty_like(saved, device=buffer.device)
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    @abc.abstractmethod
    def forward(self, step: DomainStep) -> dict[str, Tensor]:
        """Named shares of the loss, each weighted and a scalar (); they are added to the source's loss."""

    def begin(self, model: PretrainedModel) -> None:
        """Before the first step, with the model as it is then; where a run goes on, its state is put back after it."""

    def begin_epoch(self, epoch: int, look: Look) -> None:
        """Before each epoch. look: asks the model for (features, outputs, places) of all target samples."""

    def end_step(self, model: PretrainedModel) -> None:
        """After each step of the optimizer."""


@dataclass(frozen=True, kw_only=True)
class AdaptationMethod(FlatRecord, abc.ABC):
    """A method and its settings; a subclass is registered with @METHODS.register(name).

    family: adversarial, alignment, self_supervised, self_training, source_free, test_time, gradual or classical.
    uses_source: False for methods that adapt a trained model on target samples alone. tasks: what it can be asked to
    adapt.
    """

    family: ClassVar[str]
    uses_source: ClassVar[bool] = True
    tasks: ClassVar[tuple[TaskKind, ...]] = ("multi_class",)


@dataclass(frozen=True, kw_only=True)
class TermMethod(AdaptationMethod):
    """A method that is a term of the loss.

    reads_inputs: why it needs the samples themselves, so that they cannot be replaced by what frozen layers give; None
        where features and outputs are all that it looks at.
    trains: what of the model learns: "all" that the strategy lets, "body" without the head's last layer, or "norms",
        the scales and shifts of its normalisation layers.
    """

    reads_inputs: ClassVar[str | None] = None
    trains: ClassVar[str] = "all"

    @abc.abstractmethod
    def term(self, sizes: Sizes) -> Term:
        """The term, new. Draws from torch's global generator, which the caller seeds."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """What a method that is no term goes by. source: labelled samples, None without them. target: its samples.

    target_batches: once through the target, as an evaluation sees it, on the model's device. intermediate, pool: see
    DomainAdapter.fit.
    """

    source: Any
    target: Any
    target_batches: Callable[[], Iterator[Batch]]
    batch_size: int
    num_workers: int
    intermediate: Sequence[Any] = ()
    pool: Any = None


@dataclass(frozen=True, kw_only=True)
class WholeMethod(AdaptationMethod):
    """A method that changes a trained model as it sees fit; the model is judged before and after.

    by_target: it normalises by the target's statistics afterwards, so that the source is no judge of it any more.
    leaves_trunk: it changes nothing but the head.
    walks: it goes through domains between source and target.
    """

    by_target: ClassVar[bool] = False
    leaves_trunk: ClassVar[bool] = False
    walks: ClassVar[bool] = False

    def check_model(self, tuner: Tuner) -> None:
        """Raise, before any time is spent, what the method has against the model."""

    @abc.abstractmethod
    def adapt(self, tuner: Tuner, way: Way) -> None:
        """Adapt the tuner's model in place. Where an error is raised DomainAdapter puts the model from before back."""


METHODS: Registry[type[Any]] = Registry("method of domain adaptation", hint="list_adaptation_methods() lists all.")


def record_of(method: AdaptationMethod) -> Record:
    """A method and its settings as JSON values."""
    return flat_record.record_of(METHODS, method)


def method_from(record: Mapping[str, Any]) -> AdaptationMethod:
    """What record_of described. Raises DamagedFileError for what it cannot have written."""
    found: AdaptationMethod = flat_record.from_record(METHODS, record)
    return found
