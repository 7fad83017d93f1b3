"""At most so many rows of a stream, drawn evenly, the same ones however the stream is cut into batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import numpy
import torch
from torch import Tensor


@final
class RowSample:
    """Keeps the `most` rows whose numbers are smallest; a row's number is drawn from its place and the seed alone."""

    def __init__(self, most: int, seed: int = 0) -> None:
        self.most, self.seed = most, seed
        self.reset()

    def reset(self) -> None:
        """Forget all rows."""
        self.seen = 0
        self._places: list[Tensor] = []
        self._rows: list[Tensor] = []

    def add(self, rows: Tensor) -> None:
        """The stream's next rows, (n, w); kept on the CPU."""
        places = torch.arange(self.seen, self.seen + len(rows))
        self.seen += len(rows)
        self._places.append(places)
        self._rows.append(rows.detach().cpu())
        if sum(map(len, self._places)) > 2 * self.most:
            self._thin()

    def rows(self) -> Tensor | None:
        """(at most `most`, w) in the stream's order; None where there were none."""
        self._thin()
        return self._rows[0] if self._rows and len(self._rows[0]) else None

    def state(self) -> dict[str, Any]:
        """Numbers and tensors, from which load_state goes on."""
        self._thin()
        return {"seen": self.seen, "places": list(self._places), "rows": [part.clone() for part in self._rows]}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where state() was taken."""
        self.seen = state["seen"]
        self._places, self._rows = list(state["places"]), list(state["rows"])

    def _thin(self) -> None:
        if not self._rows:
            return
        places, rows = torch.cat(self._places), torch.cat(self._rows)
        if len(places) > self.most:
            chosen = torch.from_numpy(numpy.argsort(_drawn(places.numpy(), self.seed), kind="stable")[: self.most])
            chosen = chosen.sort().values
            places, rows = places[chosen], rows[chosen]
        self._places, self._rows = [places], [rows]


def _drawn(places: numpy.ndarray, seed: int) -> numpy.ndarray:
    """A pseudo-random number for each place: SplitMix64 (Steele, Lea & Flood, OOPSLA 2014) of seed and place."""
    state = (places.astype(numpy.uint64) + numpy.uint64(1)) * numpy.uint64(0x9E3779B97F4A7C15) + numpy.uint64(seed)
    state = (state ^ (state >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
    return state ^ (state >> numpy.uint64(31))
