"""Connectionist temporal classification: from symbols per frame to a sequence of symbols.

Graves et al., Connectionist Temporal Classification, ICML 2006. An alignment gives each frame a symbol or the blank; it
means the sequence that is left when repeats are merged and blanks taken out (section 3.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..errors import ConfigurationError, InputMismatchError


def collapse(alignment: list[int], blank: int = 0) -> list[int]:
    """The sequence that an alignment means: repeats merged, then blanks taken out. Graves et al., section 3.1."""
    return [
        symbol
        for place, symbol in enumerate(alignment)
        if symbol != blank and (place == 0 or symbol != alignment[place - 1])
    ]


def greedy_decode(log_probabilities: Tensor, blank: int = 0) -> list[int]:
    """The sequence of the most probable alignment (best path, Graves et al., section 3.2), not always the best one.

    log_probabilities: (frames, symbols), or logits. Raises InputMismatchError for another shape or NaN.
    """
    _check(log_probabilities, blank)
    return collapse(log_probabilities.argmax(1).tolist(), blank)


@dataclass(frozen=True)
class Transcript:
    """A sequence of symbols, and the logarithm of the probability of all alignments of it that were followed."""

    symbols: tuple[int, ...]
    log_probability: float


def beam_decode(log_probabilities: Tensor, beam_width: int = 16, blank: int = 0) -> list[Transcript]:
    """The most probable sequences, best first, at most beam_width: alignments of one sequence are added up.

    Prefix search (Graves et al., section 3.2) by frames, with a fixed number of prefixes (Hannun et al., First-Pass
    Large Vocabulary Continuous Speech Recognition using Bi-Directional Recurrent DNNs, 2014, algorithm 1, without a
    language model). With as many beams as there are sequences the probabilities are exact; with fewer they are lower
    bounds.

    log_probabilities: (frames, symbols). Raises InputMismatchError for another shape or NaN, ConfigurationError for no
    beams.
    """
    _check(log_probabilities, blank)
    if beam_width < 1:
        raise ConfigurationError(f"beam_width={beam_width}; it is a number of sequences to follow, at least 1.")
    beams = _Beams.start()
    for frame in log_probabilities.detach().double().cpu().numpy():
        beams = _step(beams, frame, beam_width, blank)
    total = beams.total()
    order = np.argsort(-total, kind="stable")
    return [Transcript(beams.prefixes[place], float(total[place])) for place in order]


@dataclass(frozen=True)
class _Beams:
    """Prefixes, and ln of the probability of their alignments that end with a blank and with their last symbol."""

    prefixes: list[tuple[int, ...]]
    blank: np.ndarray
    symbol: np.ndarray

    @classmethod
    def start(cls) -> _Beams:
        """Nothing was read yet."""
        return cls([()], np.zeros(1), np.full(1, -np.inf))

    def total(self) -> np.ndarray:
        """(beams,) ln of the probability of all alignments."""
        return np.asarray(np.logaddexp(self.blank, self.symbol))


def _step(beams: _Beams, frame: np.ndarray, width: int, blank: int) -> _Beams:
    """One frame further. frame: (symbols,) ln of probabilities."""
    ends = [(place, prefix[-1]) for place, prefix in enumerate(beams.prefixes) if prefix]
    rows, last = (np.array([end[part] for end in ends], dtype=np.int64) for part in (0, 1))
    total = beams.total()
    longer = total[:, None] + frame
    longer[:, blank] = -np.inf
    longer[rows, last] = beams.blank[rows] + frame[last]  # the same symbol again is a new one behind a blank alone
    same_blank, same_symbol = total + frame[blank], np.full(len(total), -np.inf)
    same_symbol[rows] = beams.symbol[rows] + frame[last]
    place_of = {prefix: place for place, prefix in enumerate(beams.prefixes)}
    for place, symbol in ends:  # one symbol longer than another beam: one prefix, reached in two ways
        shorter = place_of.get(beams.prefixes[place][:-1])
        if shorter is not None:
            same_symbol[place] = np.logaddexp(same_symbol[place], longer[shorter, symbol])
            longer[shorter, symbol] = -np.inf
    return _best(beams.prefixes, same_blank, same_symbol, longer, width)


def _best(
    prefixes: list[tuple[int, ...]], same_blank: np.ndarray, same_symbol: np.ndarray, longer: np.ndarray, width: int
) -> _Beams:
    """The most probable of the prefixes that stayed, (beams,), and of those with a symbol more, (beams, symbols)."""
    candidates = np.concatenate([np.logaddexp(same_blank, same_symbol), longer.ravel()])
    kept = np.argsort(-candidates, kind="stable")[:width]
    possible = kept[candidates[kept] > -np.inf]
    kept = possible if len(possible) else kept[:1]
    count, symbols = longer.shape
    found: list[tuple[int, ...]] = []
    blanks, last = np.full(len(kept), -np.inf), candidates[kept]
    for row, candidate in enumerate(kept.tolist()):
        if candidate < count:
            found.append(prefixes[candidate])
            blanks[row], last[row] = same_blank[candidate], same_symbol[candidate]
        else:
            place, symbol = divmod(candidate - count, symbols)
            found.append((*prefixes[place], symbol))
    return _Beams(found, blanks, last)


def _check(log_probabilities: Tensor, blank: int) -> None:
    if log_probabilities.ndim != 2 or not 0 <= blank < log_probabilities.shape[1]:
        raise InputMismatchError(
            f"scores of shape {tuple(log_probabilities.shape)} came with the blank {blank}; they are those of one "
            "sample, (frames, symbols), and the blank is one of the symbols."
        )
    if bool(log_probabilities.isnan().any()):
        raise InputMismatchError("the scores of the symbols hold NaN; look for NaN or very large values in the sound.")
