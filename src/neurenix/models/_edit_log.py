"""What was done to a model since it was loaded, so that it can be done again, and undone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

from torch import Tensor


@final
@dataclass(frozen=True)
class BeforeEdits:
    """A model's state before the first edit, by the tensors' names in it.

    as_loaded: it was then what its source gives, so that it can be had again from there. preprocess: what it had then.
    """

    shapes: Mapping[str, tuple[int, ...]]
    digests: Mapping[str, str]
    as_loaded: bool
    preprocess: Any = None


@final
@dataclass(frozen=True)
class Applied:
    """One edit. record: its name under "edit" and its arguments, JSON values.

    tensors: of the layers that it made, as they began. changes: what it takes to undo it, see transfer.surgery.
    """

    record: Mapping[str, Any]
    tensors: Mapping[str, Tensor] = field(repr=False)
    changes: Any = field(repr=False)


@final
@dataclass
class EditLog:
    """The edits of a model, in order."""

    before: BeforeEdits
    applied: list[Applied] = field(default_factory=list)
