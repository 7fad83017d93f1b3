"""Cut domains and ordered pools into windows, one for each step of gradual self-training."""

from __future__ import annotations

from collections.abc import Callable

STEPS = 25  # windows of a pool; half as many where twice as long ones agree
_FACTORS = (2.0, 1.0, 0.5, 0.25)  # of a pool's window, the largest that agrees is taken


def equal_windows(count: int, size: int | None) -> list[range]:
    """0 … count - 1 in their order, in windows that are as equal as can be and about `size` long; None: one window."""
    parts = 1 if size is None else max(1, round(count / size))
    edges = [round(count * part / parts) for part in range(parts + 1)]
    return [range(start, end) for start, end in zip(edges, edges[1:], strict=False)]


def next_window(
    left: int, size: int, disagreement_of: Callable[[int], float], agreeing: float, least: int
) -> tuple[int, float]:
    """How many samples of the `left` ones to take next: the longest of 2, 1, ½ and ¼ windows that still agrees.

    disagreement_of: number of samples -> what is lost, see cycle_disagreement. agreeing: the most that may be lost.
    least: the fewest samples of a window. Where none agrees, the window that loses least. -> (samples, what it loses)
    """
    lengths = dict.fromkeys(_whole(left, min(left, max(least, round(factor * size))), least) for factor in _FACTORS)
    tried: dict[int, float] = {}
    for length in lengths:
        tried[length] = disagreement_of(length)
        if tried[length] <= agreeing:
            return length, tried[length]
    best = min(tried, key=lambda length: (tried[length], -length))
    return best, tried[best]


def _whole(left: int, length: int, least: int) -> int:
    """All that is left, where what would remain is no window."""
    return left if left - length < least else length
