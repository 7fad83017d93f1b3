"""What besides the job decides the last bits of a result."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from .._version import __version__


def environment(device: torch.device, precision: str, processes: int) -> dict[str, Any]:
    """Versions, hardware and threads: with all of them equal a resumed run has the same bits."""
    return {
        "neurenix": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": _device_name(device),
        "precision": precision,
        "threads": torch.get_num_threads(),
        "processes": processes,
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "matmul precision": torch.get_float32_matmul_precision(),
    }


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs, in words: "threads 2, now 1"."""
    names = dict.fromkeys([*then, *now])
    return [f"{name} {then.get(name)}, now {now.get(name)}" for name in names if then.get(name) != now.get(name)]


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {_processor()}" if device.type == "cpu" else device.type


def _processor() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
