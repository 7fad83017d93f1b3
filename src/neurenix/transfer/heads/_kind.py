"""What a kind of head is: a flat record that builds it, in any process, on any backbone."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, get_type_hints

from torch import nn

from ...errors import ConfigurationError, DamagedFileError
from ...metrics import TaskKind
from ...registry import Registry
from ..arguments import as_list, check_types, plain
from ._backbone import Backbone
from ._expected_images import with_labels

Record = dict[str, Any]  # {"kind": name, field: value, …}, JSON
OWN = "own"  # the losses that a head brings itself
SOLVED = ("closed_form", "lda")  # starts that are computed from the features of the training data


@dataclass(frozen=True, kw_only=True)
class HeadKind(abc.ABC):
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

    def check(self) -> None:  # noqa: B027  (most have nothing more to refuse)
        """Raise ConfigurationError for values that cannot work; types are checked already."""

    def __post_init__(self) -> None:
        hints = {field.name: get_type_hints(type(self))[field.name] for field in fields(self)}
        for name, hint in hints.items():
            value = getattr(self, name)
            is_list = getattr(hint, "__origin__", None) is list
            object.__setattr__(self, name, as_list(value) if is_list else plain(value))
        check_types({name: getattr(self, name) for name in hints}, hints)
        outputs, start = getattr(self, "num_outputs", 1), getattr(self, "start", "default")
        if outputs < 1:
            raise ConfigurationError(f"num_outputs={outputs}; a head gives at least one.")
        if start not in self.starts:
            raise ConfigurationError(f"start={start!r}; {type(self).__name__} can begin as {', '.join(self.starts)}.")
        self.check()


HEADS: Registry[type[HeadKind]] = Registry("head", hint="neurenix.transfer.list_heads() lists all.")


def name_of(kind: HeadKind) -> str:
    """The name that a kind is registered under; raises ConfigurationError where it is not."""
    for name, entry in HEADS.items():
        if entry is type(kind):
            return name
    raise ConfigurationError(
        f"{type(kind).__name__} is not registered, so a saved model could not find it again: put "
        "@HEADS.register(name) before the class."
    )


def record_of(kind: HeadKind) -> Record:
    """A kind and its settings as JSON values."""
    return {"kind": name_of(kind), **asdict(kind)}


def kind_from(record: Mapping[str, Any]) -> HeadKind:
    """What record_of described. Raises DamagedFileError for what it cannot have written."""
    values = {name: value for name, value in record.items() if name != "kind"}
    if record.get("kind") not in HEADS:
        raise DamagedFileError(f"a head of kind {record.get('kind')!r} is described; known: {', '.join(HEADS)}.")
    try:
        return HEADS[record["kind"]](**values)
    except TypeError as error:
        raise DamagedFileError(f"the head {record['kind']!r} is described with other settings: {error}.") from error


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
