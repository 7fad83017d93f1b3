"""What a plan of transport costs: names that POT knows, checked at the door."""

from __future__ import annotations

from .....errors import ConfigurationError

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
