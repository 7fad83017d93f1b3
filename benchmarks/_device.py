"""Where the contestants compute: NEURENIX_BENCH_DEVICE, "cuda" say; the CPU by default."""

from __future__ import annotations

import importlib
import importlib.util
import os
import time
from collections.abc import Sequence

import torch

from neurenix.devices import cpu_flags, has_fast_bfloat16

DEVICE = torch.device(os.environ.get("NEURENIX_BENCH_DEVICE", "cpu"))


def multiplies_bfloat16() -> bool:
    """Whether the device has instructions for bf16, so that the peers have contestants in it."""
    if DEVICE.type == "cpu":
        return bool({"amx_bf16", "avx512_bf16"} & cpu_flags())
    return has_fast_bfloat16(DEVICE)


def now() -> float:
    """Seconds of a clock, once the device has finished what it was given."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize(DEVICE)
    return time.perf_counter()


def begin() -> None:
    """Wake the device up, which is in no contestant's time."""
    torch.zeros(1, device=DEVICE)
    now()


def import_present(modules: Sequence[str]) -> None:
    """Import what contestants would import while they are timed; what is not installed is not used by them."""
    for name in modules:
        if importlib.util.find_spec(name.partition(".")[0]) is not None:
            importlib.import_module(name)
    begin()
