"""From a row of a table to the numbers and categories that a network reads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self, final

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigurationError, InputMismatchError
from ._dataset import Dataset
from .findings import Finding, report
from .preparation import PREPROCESSES, PreparedDataset

NUMBER = "number"
_LEAST_STD = 1e-12


@final
@dataclass(frozen=True, kw_only=True)
class Column:
    """One column. categories: names of a column of categories; None of one of numbers. mean, std: of its numbers."""

    name: str
    categories: tuple[str, ...] | None = None
    mean: float = 0.0
    std: float = 1.0


@final
@PREPROCESSES.register("table")
@dataclass(frozen=True)
class TablePreprocess:
    """One raw row -> {"values": (numbers,) float32, "categories": (columns of categories,) int64}, in the columns'
    order.

    A raw row is a mapping of column names, which may hold others too, or a sequence, array or tensor with a value for
    each column. Numbers are standardised, and a missing one (None, NaN) becomes 0, the mean. Categories count from 1;
    0 is one that is missing or not known.
    """

    reads: ClassVar[str] = "table"

    columns: tuple[Column, ...]

    def __call__(self, raw: Any) -> dict[str, Tensor]:
        """What the network reads of one raw row."""
        cells = self._cells(raw)
        values = [self._number(column, cells[place]) for place, column in self._of(numbers=True)]
        categories = [_category(column, cells[place]) for place, column in self._of(numbers=False)]
        row = {}
        if values:
            row["values"] = torch.tensor(values, dtype=torch.float32)
        if categories:
            row["categories"] = torch.tensor(categories)
        return row

    @classmethod
    def of(cls, columns: Mapping[str, str | Sequence[Any]]) -> Self:
        """columns: name -> "number", or the names of its categories. Raises ConfigurationError for anything else."""
        if not isinstance(columns, Mapping) or not columns:
            raise ConfigurationError(
                f"columns={columns!r}; it is {{name: 'number' or a list of categories, …}}, not empty."
            )
        made = []
        for name, kind in columns.items():
            if isinstance(kind, str) and kind != NUMBER or not isinstance(kind, Sequence) or len(kind) == 0:
                raise ConfigurationError(
                    f"column {name!r} is {kind!r}; possible: 'number', or a list of its categories."
                )
            names = None if isinstance(kind, str) else tuple(str(category) for category in kind)
            if names is not None and len(set(names)) < len(names):
                raise ConfigurationError(f"column {name!r} has a category twice: {', '.join(names)}.")
            made.append(Column(name=str(name), categories=names))
        return cls(tuple(made))

    def measured(self, rows: Sequence[Any]) -> Self:
        """The same with the mean and deviation that the numbers have in these raw rows."""
        cells = [self._cells(row) for row in rows]
        columns = list(self.columns)
        for place, column in self._of(numbers=True):
            numbers = np.array([self._number(column, row[place], missing=math.nan) for row in cells])
            if np.isnan(numbers).all():
                raise InputMismatchError(f"column {column.name!r} has no number in any of the rows; leave it out.")
            std = float(np.nanstd(numbers))
            columns[place] = replace(column, mean=float(np.nanmean(numbers)), std=std if std > _LEAST_STD else 1.0)
        return replace(self, columns=tuple(columns))

    @property
    def numbers(self) -> int:
        """How many columns hold numbers."""
        return len(self._of(numbers=True))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Of each column of categories, how many numbers its categories take."""
        return tuple(1 + len(column.categories or ()) for _, column in self._of(numbers=False))

    def accepts(self, raw: Any) -> bool:
        """Whether `raw` is a raw row; False for the tensors of a ready one."""
        if isinstance(raw, Mapping):
            return not any(isinstance(value, Tensor) and value.ndim for value in raw.values())
        if isinstance(raw, (np.ndarray, Tensor)):
            return raw.ndim == 1
        return isinstance(raw, Sequence) and not isinstance(raw, (str, bytes))

    def example(self) -> Any:
        """A raw row."""
        return {column.name: 0.0 if column.categories is None else None for column in self.columns}

    def wrap(self, dataset: Any, training: bool) -> Dataset:
        """`dataset` of raw rows as one of ready ones; training changes nothing."""
        return PreparedDataset(dataset, self)

    def check(self, inputs: Any) -> None:
        """Raise InputMismatchError when a batch is not of these columns."""
        wanted = {"values": self.numbers, "categories": len(self.sizes)}
        got = inputs if isinstance(inputs, Mapping) else {}
        for name, count in wanted.items():
            shape = getattr(got.get(name), "shape", (0, 0))
            if count and (len(shape) != 2 or shape[1] != count):
                words = (
                    f"this model reads rows of the columns {self._names()}, and the first batch is none of such rows."
                )
                report([Finding("layout", True, words)])
        values = got.get("values")
        if isinstance(values, Tensor) and not bool(values.isfinite().all()):
            report([Finding("finite", True, "the first batch of rows holds infinity.")])

    def to_json(self) -> dict[str, Any]:
        """The preprocessing as JSON values."""
        columns = [
            {
                "name": c.name,
                "categories": None if c.categories is None else list(c.categories),
                "mean": c.mean,
                "std": c.std,
            }
            for c in self.columns
        ]
        return {"kind": "table", "columns": columns}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], folder: Path | None = None) -> TablePreprocess:
        """What to_json described. folder: where a saved model lies; rows need nothing from it."""
        return cls(
            tuple(
                Column(
                    name=column["name"],
                    categories=None if column["categories"] is None else tuple(column["categories"]),
                    mean=float(column["mean"]),
                    std=float(column["std"]),
                )
                for column in values["columns"]
            )
        )

    def _of(self, *, numbers: bool) -> list[tuple[int, Column]]:
        return [(place, c) for place, c in enumerate(self.columns) if (c.categories is None) == numbers]

    def _cells(self, raw: Any) -> list[Any]:
        if isinstance(raw, Mapping):
            missing = [column.name for column in self.columns if column.name not in raw]
            if missing:
                raise InputMismatchError(
                    f"a row without {', '.join(missing[:5])} came; the columns are {self._names()}."
                )
            return [raw[column.name] for column in self.columns]
        cells = raw.tolist() if isinstance(raw, (np.ndarray, Tensor)) else list(raw)
        if len(cells) != len(self.columns):
            raise InputMismatchError(
                f"a row of {len(cells)} values came, and there are {len(self.columns)} columns: {self._names()}."
            )
        return cells

    def _number(self, column: Column, cell: Any, missing: float | None = None) -> float:
        """The standardised number, or as it is where a value for missing ones is given."""
        try:
            number = math.nan if cell is None else float(cell)
        except (TypeError, ValueError):
            raise InputMismatchError(f"column {column.name!r} is one of numbers, and {cell!r} came.") from None
        if missing is not None:
            return number
        return 0.0 if math.isnan(number) else (number - column.mean) / column.std

    def _names(self) -> str:
        names = [column.name for column in self.columns]
        return ", ".join(names[:8]) + ("" if len(names) <= 8 else f" and {len(names) - 8} more")


def _category(column: Column, cell: Any) -> int:
    names = column.categories or ()
    return 1 + names.index(str(cell)) if str(cell) in names else 0
