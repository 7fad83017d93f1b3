"""The global generators that transforms draw from, seeded for a while and given back as they were."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy.random  # here, and not by each worker process for itself: an import after a fork may fail
import torch


def seed_everything(seed: int) -> None:
    """Seed torch's CPU generator, NumPy's and Python's; only inside own_random_state."""
    torch.default_generator.manual_seed(seed >> 1)  # not torch.manual_seed, which would reseed the GPU too
    numpy.random.seed(seed & 0xFFFFFFFF)
    random.seed(seed)


def drew_since(seed: int) -> bool:
    """Whether a generator was drawn from since seed_everything(seed): by the numbers that come next, in 15 µs."""
    come = _next_numbers()
    seed_everything(seed)
    return come != _next_numbers()


def _next_numbers() -> tuple[int, float, float]:
    own = torch.empty((), dtype=torch.int64, device="cpu").random_(generator=torch.default_generator)
    return int(own), numpy.random.random_sample(), random.random()


@contextlib.contextmanager
def own_random_state() -> Iterator[None]:
    """Whatever is seeded or drawn inside the block leaves the caller's CPU generators as they were."""
    state = torch.default_generator.get_state()
    numpy_state, python_state = numpy.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.default_generator.set_state(state)
        numpy.random.set_state(numpy_state)
        random.setstate(python_state)


def generator_states() -> tuple[Any, ...]:
    """The state of each generator that seed_everything seeds, to be compared with another one."""
    numpy_state: Any = numpy.random.get_state()
    own = torch.default_generator.get_state().numpy().tobytes()
    return own, numpy_state[1].tobytes(), numpy_state[2], random.getstate()
