"""What a plan of transport costs: names that POT knows, checked at the door."""

from __future__ import annotations

import numpy
from torch import Tensor

from ..... import packages
from .....errors import ConfigurationError
from ._skada import check_packages

COSTS = ("sqeuclidean", "euclidean", "cityblock", "cosine", "correlation", "chebyshev")
SCALINGS = (None, "median", "max", "log", "loglog")


def check_costs(costs: str, scaling: str | None = None, strength: float = 1.0) -> None:
    """Raise ConfigurationError for distances and scalings of them that there are not, or a strength that is none."""
    if costs not in COSTS:
        raise ConfigurationError(f"costs={costs!r}; possible: {', '.join(COSTS)}.")
    if scaling not in SCALINGS:
        raise ConfigurationError(f"scaling={scaling!r}; possible: {', '.join(map(str, SCALINGS))}.")
    if not strength > 0:
        raise ConfigurationError(f"smoothing={strength}; it is positive, as large as usual costs.")


def median_cost(source: Tensor, target: Tensor, costs: str) -> float:
    """Median over all pairs of a source and a target sample, 1 where it is 0. source: (n, d), target: (m, d)"""
    check_packages()
    transport = packages.require("ot", purpose="a classical method")
    found = float(numpy.median(transport.dist(source.numpy(), target.numpy(), metric=costs)))
    return found if found > 0 else 1.0


def checked_arrivals(name: str, moved: Tensor) -> Tensor:
    """Where the source's samples arrive, (n, d). Raises ConfigurationError where some are sent nowhere, to zeros."""
    lost = int((~moved.any(1)).sum())
    if lost > 1:  # one may be there by chance
        raise ConfigurationError(
            f"{name} sends {lost} of {len(moved)} source samples nowhere: their costs are so far above smoothing that "
            "their exponentials vanish. Take scaling='median', or more smoothing."
        )
    return moved
