"""What a kind of head is: a flat record that builds it, in any process, on any backbone."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from torch import nn

from ...errors import ConfigurationError
from ...metrics import TaskKind
from ...registry import Registry
from .. import flat_record
from ..flat_record import FlatRecord, Record
from ._backbone import Backbone
from ._expected_images import with_labels

OWN = "own"  # the losses that a head brings itself
SOLVED = ("closed_form", "lda")  # starts that are computed from the features of the training data


@dataclass(frozen=True, kw_only=True)
class HeadKind(FlatRecord, abc.ABC):
    """A kind of head and its settings; a subclass adds fields that JSON can hold, and is registered in HEADS.

    Where a head has a number of classes, labels or values, that field is called num_outputs.

    task: what a model with this head is asked; None where the loss says it.
    loss: the loss where a tuner is given none, a name in training.LOSSES or "own".
    learns: whether there is anything to train; a memory is filled.
    starts: how its weights may begin; those of a kind without a field `start` begin as build leaves them.
    """

    task: ClassVar[TaskKind | None]
    loss: ClassVar[str]
    learns: ClassVar[bool] = True
    starts: ClassVar[tuple[str, ...]] = ("default",)

    @abc.abstractmethod
    def build(self, backbone: Backbone) -> nn.Module:
        """The head, new. Draws from torch's global generator, which the caller seeds.

        A TaskHead, a VectorHead, or a module of linear layers (n, feature_size) -> (n, num_outputs).
        Raises ConfigurationError for a backbone that cannot carry it.
        """

    def preprocessing(self, preprocess: Any) -> Any:
        """The preprocessing of a model with this head, made of the one that it has; by default one for labels.

        Given what it made, it gives the same again. Raises ConfigurationError where none can be made.
        """
        return with_labels(preprocess)

    def __post_init__(self) -> None:
        super().__post_init__()
        outputs, start = getattr(self, "num_outputs", 1), getattr(self, "start", "default")
        if outputs < 1:
            raise ConfigurationError(f"num_outputs={outputs}; a head gives at least one.")
        if start not in self.starts:
            raise ConfigurationError(f"start={start!r}; {type(self).__name__} can begin as {', '.join(self.starts)}.")


HEADS: Registry[type[HeadKind]] = Registry("head", hint="neurenix.transfer.list_heads() lists all.")


def record_of(kind: HeadKind) -> Record:
    """A kind and its settings as JSON values."""
    return flat_record.record_of(HEADS, kind)


def kind_from(record: Mapping[str, Any]) -> HeadKind:
    """What record_of described. Raises DamagedFileError for what it cannot have written."""
    return flat_record.from_record(HEADS, record)


def has_outputs(kind: type[HeadKind]) -> bool:
    """Whether heads of this kind have a number of outputs that the data or the caller decide."""
    return any(field.name == "num_outputs" for field in fields(kind))


def start_of(record: Mapping[str, Any] | None) -> str:
    """How the weights of a model's head are to begin, as long as they have not."""
    return str((record or {}).get("start", "default"))


def begun(record: Mapping[str, Any] | None) -> Record | None:
    """The record of a head whose weights have begun, so that they do not a second time."""
    if record is None:
        return None
    return {name: "default" if name == "start" else value for name, value in record.items()}
