"""Every epoch's numbers in a CSV file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from ..errors import DamagedFileError
from ..storage import write_bytes
from ._base import CALLBACKS, Callback, Logs


@final
@CALLBACKS.register("CSVLogger")
class CSVLogger(Callback):
    """One row per epoch: epoch (from 1), phase, all that is logged, and learning rates as `lr_<group>`.

    The file is replaced as a whole after each epoch, so it is complete at every moment, and a resumed run
    continues from its checkpoint's epoch without repeated rows. append: keep the rows that the file has.
    """

    def __init__(self, filepath: str | Path, append: bool = False) -> None:
        self.filepath = Path(filepath)
        self.append = append
        self._rows: list[dict[str, str]] = []

    def on_train_begin(self, logs: Logs) -> None:
        """Start empty, or from the rows of an existing file."""
        self._rows = _read_rows(self.filepath) if self.append and self.filepath.exists() else []

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Add a row and write the file."""
        rates = {f"lr_{group}": rate for group, rate in self.run.learning_rates.items()}
        row = {"epoch": epoch + 1, "phase": self.run.phase, **logs, **rates}
        self._rows.append({name: _text(value) for name, value in row.items()})
        if self.run.is_main_process:
            write_bytes(self.filepath, _table(self._rows).encode())

    def state_dict(self) -> dict[str, Any]:
        """All rows."""
        return {"rows": [dict(row) for row in self._rows]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue after these rows; whatever the file holds beyond them will be run, and written, again."""
        self._rows = [dict(row) for row in state["rows"]]


def _text(value: object) -> str:
    return json.dumps(value) if isinstance(value, list) else str(value)


def _table(rows: list[dict[str, str]]) -> str:
    # A later epoch may bring new columns (a newly unfrozen group); earlier rows stay empty there.
    columns = list(dict.fromkeys(name for row in rows for name in row))
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        try:
            rows = list(csv.DictReader(stream, strict=True))
        except (csv.Error, UnicodeDecodeError) as error:
            raise DamagedFileError(f"{path} is not a CSV file ({error}); move it away, or use append=False.") from error
    if any(None in row or None in row.values() for row in rows):
        raise DamagedFileError(f"{path} has rows of unequal length; move it away, or use append=False.")
    return rows
