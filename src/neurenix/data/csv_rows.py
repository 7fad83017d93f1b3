"""CSV in which single rows may be damaged: such a row is named, and the others stay what they are."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, final

from ..errors import EmptyDatasetError, UnreadableSampleError
from ..packages import require
from ._batch import Skipped

_END = "\0end of table"
_LONGEST_FIELD = 1 << 27  # characters; the csv module's own limit of 131,072 is shorter than some texts


@final
@dataclass(frozen=True)
class _Row:
    """number: of the data row, from 0; -1 is the header. line: of the file, from 1. wrong: empty for a good row.

    tail: empty fields beyond the header's, which spreadsheets write and pandas would not take.
    """

    number: int
    line: int
    fields: list[str]
    wrong: str
    tail: bool = False


def read_csv(path: Path, content: bytes, *, skip: bool) -> tuple[Any, list[int], list[Skipped]]:
    """(pandas frame, the number of each of its rows in the file, rows left out) of a CSV file's bytes.

    A row is bad that is no UTF-8 or has more fields than the header; pandas would take a longer first row for a
    table whose first column has no name, and shift all others. Shorter rows lack values and stay. Raises
    UnreadableSampleError at a bad row unless `skip`.
    """
    pandas = require("pandas", purpose="reading tables")
    text = content.decode("utf-8-sig", errors="surrogateescape")
    odd = [row for row in _rows(path, text) if row.wrong or row.tail]
    wrong = [row for row in odd if row.wrong]
    if not odd:
        frame = pandas.read_csv(io.StringIO(text), index_col=False)
        return frame, list(range(len(frame))), []
    bad = [Skipped(row.number, f"{path} row {row.number}", f"{path} row {row.number} {row.wrong}") for row in wrong]
    if bad and not skip:
        raise UnreadableSampleError(
            f"{bad[0].reason} (line {wrong[0].line}); so it is with {len(bad)} rows. Repair them, or leave them out "
            "with on_bad='skip'."
        )
    good = [row for row in _rows(path, text) if not row.wrong]
    frame = pandas.read_csv(io.StringIO(_written([row.fields for row in good])), index_col=False)
    return frame, [row.number for row in good[1:]], bad


def _rows(path: Path, text: str) -> Iterator[_Row]:
    """The header and every row that is not blank; raises EmptyDatasetError where rows cannot be told apart."""
    reader = csv.reader(chain(io.StringIO(text, newline=""), ["\n", _END]))
    before = csv.field_size_limit(_LONGEST_FIELD)
    try:
        filled = ((reader.line_num, fields) for fields in reader if fields)
        line, header = next(filled)
        if header == [_END] or _wrong(header, len(header)):
            raise EmptyDatasetError(f"{path} cannot be read as a table: its first line names no columns.")
        yield _Row(-1, line, header, "")
        for number, (line, fields) in enumerate(filled):
            if fields == [_END]:
                return
            tail = len(fields) > len(header)
            yield _Row(number, line, fields[: len(header)], _wrong(fields, len(header)), tail)
    except csv.Error as error:
        raise EmptyDatasetError(f"{path} cannot be read as a table: {error} (line {reader.line_num}).") from error
    finally:
        csv.field_size_limit(before)
    raise EmptyDatasetError(f"{path} cannot be read as a table: a quotation mark before line {line} is never closed.")


def _wrong(fields: list[str], columns: int) -> str:
    if any("\udc80" <= letter <= "\udcff" for field in fields if not field.isascii() for letter in field):
        return "is not valid UTF-8"
    if any(fields[columns:]):
        return f"has {len(fields)} fields where the header has {columns}"
    return ""


def _written(rows: list[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()
