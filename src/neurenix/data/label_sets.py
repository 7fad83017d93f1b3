"""Several labels per sample, given by their names."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from ..errors import LabelMismatchError


def as_label_sets(values: Any) -> list[Any] | None:
    """The samples' collections of names, when `values` holds such; None for all other targets."""
    if isinstance(values, np.ndarray) and (values.dtype == object or values.ndim == 2) and values.dtype.kind in "OUS":
        values = values.tolist() if values.shape[1:] != (1,) else None
    rows = list(values) if isinstance(values, Sequence) and not isinstance(values, str) else []
    named = any(_is_collection(row) and any(isinstance(name, str) for name in row) for row in rows)
    return rows if named else None


def encode_label_sets(rows: Sequence[Any], classes: Sequence[str] | None, what: str) -> tuple[np.ndarray, list[str]]:
    """(matrix (n, labels) of 0 and 1 in float32, names of its columns: `classes`, or all names, sorted).

    Raises LabelMismatchError for rows that are no collections of names, and for names outside of `classes`.
    """
    for place, row in enumerate(rows):
        if not _is_collection(row) or not all(isinstance(name, str) for name in row):
            raise LabelMismatchError(
                f"{what} holds {row!r} in row {place}, where other rows hold lists of names; give a list for every "
                "sample, empty for none."
            )
    names = sorted({name for row in rows for name in row})
    known = names if classes is None else [str(name) for name in classes]
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise LabelMismatchError(
            f"{what} holds labels that are not among the classes: {unknown[:5]}; known: {known[:10]}."
        )
    matrix = np.zeros((len(rows), len(known)), dtype=np.float32)
    place_of = {name: place for place, name in enumerate(known)}
    for number, row in enumerate(rows):
        matrix[number, [place_of[name] for name in row]] = 1
    return matrix, known


def _is_collection(row: Any) -> bool:
    is_one = getattr(row, "ndim", 1) == 0  # a number in a tensor
    return isinstance(row, (Collection, np.ndarray)) and not isinstance(row, (str, bytes, dict)) and not is_one
