"""How the strength of a term grows over the steps of an adaptation."""

from __future__ import annotations

import math
from collections.abc import Callable

from ...registry import Registry

STRENGTHS: Registry[Callable[[float], float]] = Registry("schedule of a term's strength")


@STRENGTHS.register("sigmoid")
def sigmoid(progress: float) -> float:
    """2 / (1 + exp(-10 p)) - 1, from 0 to almost 1. Ganin et al., JMLR 2016, section 5.2.2. progress: p in [0, 1]."""
    return 2.0 / (1.0 + math.exp(-10.0 * progress)) - 1.0


@STRENGTHS.register("linear")
def linear(progress: float) -> float:
    """p, from 0 to 1."""
    return progress


@STRENGTHS.register("constant")
def constant(progress: float) -> float:
    """1 from the first step."""
    return 1.0
