"""Which device, and which number format, a job runs in."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, final, get_args

import torch
from torch import nn

from .errors import ConfigurationError

Precision = Literal["auto", "fp32", "bf16", "fp16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
_SMALL = 100_000  # weights: below, a step takes as long in bf16 as in fp32, or twice as long
_MEMORY_MESSAGES = (
    "out of memory",
    "can't allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
_GROUPS = (  # of this process as a container shows them: version 2, and 1
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """`auto` is the best device present: cuda, then mps, then xpu, then cpu.

    Raises ConfigurationError when a named device does not exist on this machine.
    """
    if device == "auto":
        return torch.device(_best_device())
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ConfigurationError(
            f"device={device!r} is no device name; use 'auto', 'cpu', 'cuda', 'cuda:1', 'mps' or 'xpu'."
        ) from error
    if chosen.type not in available_devices():
        raise ConfigurationError(
            f"device={str(chosen)!r} is not present here; present: {', '.join(available_devices())}. "
            "Use device='auto' to take the best one."
        )
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ConfigurationError(
            f"device={str(chosen)!r} is not present here; of cuda there are "
            f"{', '.join(f'cuda:{number}' for number in range(torch.cuda.device_count()))}."
        )
    return chosen


def available_devices() -> tuple[str, ...]:
    """Device types usable on this machine, best first; cpu is always the last."""
    present = []
    if torch.cuda.is_available():
        present.append("cuda")
    if torch.backends.mps.is_available():
        present.append("mps")
    if hasattr(torch, "xpu") and torch.xpu.is_available():
        present.append("xpu")
    return (*present, "cpu")


def resolve_precision(
    precision: Precision, device: torch.device, model: nn.Module | None = None
) -> Literal["fp32", "bf16", "fp16"]:
    """What torch computes in. `auto` is bf16 where the device is faster in it, else fp32.

    model: that which computes; a small one (fewer than 100,000 weights) gains nothing by fewer digits, and keeps them.
    fp16 is taken only when asked for, on CUDA: it needs loss scaling and can overflow.
    """
    if precision not in PRECISIONS:
        raise ConfigurationError(f"precision={precision!r}; possible: {', '.join(PRECISIONS)}.")
    if precision == "auto":
        is_small = model is not None and sum(weights.numel() for weights in model.parameters()) < _SMALL
        return "bf16" if has_fast_bfloat16(device) and not is_small else "fp32"
    if precision == "fp16" and device.type != "cuda":
        raise ConfigurationError(f"precision='fp16' needs a CUDA device, not {device.type}; use 'bf16' or 'fp32'.")
    return precision


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bf16 matrix products are faster than fp32's: Ampere or later; on a CPU AMX, or AMD's AVX-512 bf16.

    AMD's has twice the peak of its fp32. Intel's without AMX has the same peak, and training is 1.3 to 1.9 times slower
    in it (docs/log.md).
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type == "cpu":
        flags = cpu_flags()
        return "amx_bf16" in flags or ("avx512_bf16" in flags and cpu_vendor() == "AuthenticAMD")
    return False


def has_fast_int8(device: torch.device) -> bool:
    """Whether products of whole numbers of 8 bits are faster than fp32's: a CPU with AMX or VNNI."""
    return device.type == "cpu" and bool({"amx_int8", "avx512_vnni", "avx_vnni"} & cpu_flags())


def is_exact(precision: Precision, device: torch.device) -> bool:
    """Whether layers that are only run forward have to give fp32's digits: `auto` admits fewer where they are faster.

    Fewer digits are taken only where the answers agree; see neurenix.backends.fast_forward.
    """
    if precision == "auto":
        return not (has_fast_bfloat16(device) or has_fast_int8(device))
    return precision == "fp32"


def rounding(precision: str, device: torch.device) -> float:
    """How far two ways to compute the same lie apart in a precision, relative to the size of the whole.

    In fp32 CUDA's convolutions read 10 bits of each number, unless torch is told otherwise.
    """
    if precision == "fp32":
        return 3e-3 if device.type == "cuda" else 1e-4
    return {"bf16": 3e-2, "fp16": 1e-2}[precision]


def same_sample(exact: bool, device: torch.device) -> float:
    """How far apart two runs' answers for one sample may be, relative: 0.14 is a cosine of 0.99, as of backends."""
    return max(1e-3, rounding("fp32", device)) if exact else 0.14


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """The autocast context for a resolved precision; nothing at all for fp32."""
    if precision == "fp32":
        return contextlib.nullcontext()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    return torch.autocast(device.type, dtype=dtype)


def move(value: Any, device: torch.device) -> Any:
    """Copy every tensor in nested dicts, lists and tuples to `device`; everything else stays as it is.

    To a GPU by way of pinned memory, from which it copies while this process goes on.
    """
    if isinstance(value, torch.Tensor):
        pinned = value.pin_memory() if device.type == "cuda" and value.device.type == "cpu" else value
        return pinned.to(device, non_blocking=device.type == "cuda")
    if isinstance(value, Mapping):
        return {key: move(item, device) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(move(item, device) for item in value)
    return value


@final
class Arriving:
    """A tensor on its way to the CPU, while this process goes on."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._event = None
        self._tensor = tensor.to("cpu", non_blocking=tensor.is_cuda)  # then it is pinned
        if tensor.is_cuda:
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(tensor.device))

    def arrived(self) -> torch.Tensor:
        """The tensor in ordinary memory, once it is there."""
        if self._event is None:
            return self._tensor
        self._event.synchronize()
        return self._tensor.clone()


def cpu_cores() -> int:
    """Cores that this process may use; more readers than that only get in each other's way."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory(device: torch.device) -> float:
    """Bytes that can be had of a CUDA device's memory, or of main memory without swapping; infinite if unknown.

    A container's limit counts, where Linux tells it.
    """
    if device.type == "cuda":  # what torch holds and does not use can be had too
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + held)
    listing = Path("/proc/meminfo")
    if not listing.is_file():
        return _physical_memory()
    lines = dict(line.split(":", 1) for line in listing.read_text().splitlines() if ":" in line)
    return min(float(lines["MemAvailable"].split()[0]) * 1024, *map(_left_in_group, _GROUPS))


def _physical_memory() -> float:
    """All of it, where the system does not tell how much is free: macOS."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return float("inf")


def _left_in_group(group: tuple[Path, str, str, str]) -> float:
    """Bytes until a control group's limit; files that it has read lately can be dropped, and do not count."""
    folder, limit, used, reclaimed = group
    try:
        allowed, taken = (folder / limit).read_text().strip(), int((folder / used).read_text())
        counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        left = int(allowed) - taken + int(counts.get(reclaimed, 0))
    except (OSError, ValueError):  # no such group, or "max"
        return float("inf")
    return max(0.0, float(left))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch (or Python) says that memory was not to be had, on any device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _MEMORY_MESSAGES)


def _best_device() -> str:
    return available_devices()[0]


def cpu_flags() -> set[str]:
    """Instructions that this CPU tells it has, as Linux names them: "avx512_bf16"; none on other systems."""
    return set(_told_of_cpu("flags").split())


def cpu_vendor() -> str:
    """Who made this CPU, as Linux names them: "GenuineIntel", "AuthenticAMD"; empty on other systems."""
    return _told_of_cpu("vendor_id")


@functools.cache
def _told_of_cpu(name: str, file: Path = Path("/proc/cpuinfo")) -> str:
    # Only Linux tells of its CPU in a file; elsewhere the answer is "unknown", which means fp32.
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return ""
    told = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in told if key.strip() == name), "")
