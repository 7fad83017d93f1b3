"""Learning-rate schedules: pure functions of progress, so that a resumed run needs no state for them."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..errors import ConfigurationError
from ..registry import Registry

SCHEDULES: Registry[Callable[[float], float]] = Registry("learning-rate schedule")


@SCHEDULES.register("constant", "none")
def constant(progress: float) -> float:
    """Always 1."""
    return 1.0


@SCHEDULES.register("cosine")
def cosine(progress: float) -> float:
    """(1 + cos πp) / 2: from 1 to 0. Loshchilov & Hutter, SGDR, ICLR 2017, eq. 5 without restarts."""
    return (1 + math.cos(math.pi * progress)) / 2


@SCHEDULES.register("linear")
def linear(progress: float) -> float:
    """1 - p: from 1 to 0."""
    return 1 - progress


@SCHEDULES.register("one_cycle")
def one_cycle(progress: float, peak: float = 0.3, start: float = 1 / 25, end: float = 1e-4) -> float:
    """Up from 1/25 to 1 in the first 30 %, down to 1e-4, along cosines. Smith & Topin 2017; PyTorch's constants."""
    if progress < peak:
        return _between(start, 1.0, progress / peak)
    return _between(1.0, start * end, (progress - peak) / (1 - peak))


@SCHEDULES.register("step")
def step(progress: float) -> float:
    """1, then 0.1 from half way, then 0.01 from three quarters."""
    return 0.1 ** ((progress >= 0.5) + (progress >= 0.75))


def rate_factor(schedule: str, step: int, total_steps: int, warmup_steps: int) -> float:
    """Factor on the base learning rate at a 0-based optimizer step: linear warm-up, then the schedule.

    "plateau" is handled by the loop, from the validation loss; here it is constant.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 1.0 if schedule == "plateau" else SCHEDULES[schedule](min(progress, 1.0))


def check_schedule(schedule: str) -> str:
    """The canonical name of a schedule; raises UnknownNameError."""
    return "plateau" if schedule == "plateau" else SCHEDULES.canonical(schedule)


def warmup_steps(warmup: float, total_steps: int) -> int:
    """Warmup below 1 is a share of all steps, from 1 on a number of steps."""
    if warmup < 0:
        raise ConfigurationError(f"warmup={warmup}; give a share of all steps (0.1) or a number of steps (100).")
    return round(warmup * total_steps) if warmup < 1 else min(int(warmup), total_steps)


def _between(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
