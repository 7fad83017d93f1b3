"""`neurenix doctor`: what this machine has, and how long and how much memory a fit would take, tried on a few steps."""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Subset

from .. import cuda
from ..callbacks import Callback
from ..data import label_names
from ..devices import cpu_cores, free_memory, resolve_device, resolve_precision
from ..models.sources import hub_cache
from ..packages import version_of
from ..storage import cache_folder
from ..training import runs_root
from ..transfer import Finetuner, load_pretrained_model
from ._arguments import Options, take
from ._data import part_of

if TYPE_CHECKING:
    import jsonargparse

_PACKAGES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "timm": "timm",
    "transformers": "transformers",
    "accelerate": "accelerate",
    "peft": "peft",
    "datasets": "datasets",
    "matplotlib": "matplotlib",
    "tensorboard": "tensorboard",
}
_GIB = 1 << 30
_STEPS = 4


def forecast(
    data: str | None = None,
    model: str = "efficientnet-lite0",
    weights: str = "imagenet",
    strategy: str = "full",
    batch_size: int = 16,
    epochs: int = 5,
    num_workers: int = 0,
) -> dict[str, Any]:
    """A job to try a few steps of, in a copy.

    Args:
        data: A folder of class folders, an archive of one, a table, or the word clipart; without it only the machine
            is looked at.
        model: A pretrained model.
        weights: Which weights.
        strategy: full, partial, head, progressive, lp_ft or auto.
        batch_size: Samples per batch.
        epochs: Passes over the data.
        num_workers: Processes that read data.
    """
    dataset = part_of(data, "train")
    loaded = load_pretrained_model(model, weights=None if weights in ("null", "none") else weights)
    tuner = Finetuner(loaded, num_classes=len(label_names(dataset)) or 1, strategy=strategy)
    stopwatch = _Stopwatch()
    some = Subset(dataset, range(min(len(dataset), _STEPS * batch_size)))
    with tempfile.TemporaryDirectory(prefix="neurenix-doctor-") as folder:
        before = time.perf_counter()
        tuner.fit(some, None, batch_size, 1, stopwatch, num_workers, run=Path(folder) / "run")
        started = time.perf_counter() - before
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.safetensors"))
    steps = -(-len(dataset) // batch_size)
    return {
        "samples": len(dataset),
        "steps per epoch": steps,
        "seconds per step": round(stopwatch.seconds, 4),
        "minutes in all": round((steps * epochs * stopwatch.seconds + started) / 60, 1),
        "peak memory GiB": round(_peak_memory(tuner), 2),
        "disk for checkpoints GiB": round(2 * size / _GIB, 3),
    }


class _Stopwatch(Callback):
    """seconds: of a step, without the first one, which warms up."""

    def __init__(self) -> None:
        self.seconds = float("nan")
        self._ends: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any) -> None:
        """Note the time."""
        self._ends.append(time.perf_counter())
        if len(self._ends) > 1:
            self.seconds = (self._ends[-1] - self._ends[0]) / (len(self._ends) - 1)


def parser() -> Options:
    """The options of `neurenix doctor`."""
    options = Options("doctor", "What this machine can do.", "neurenix doctor --data flowers/ --model resnet50")
    options.parser.add_argument("--json", action="store_true", help="Print JSON, for scripts.")
    options.add("a job to forecast", forecast)
    return options


def run(arguments: jsonargparse.Namespace) -> None:
    """Print what was found."""
    found = {"machine": _machine(), "packages": _packages(), "folders": _folders()}
    if arguments.data is not None:
        found["forecast"] = forecast(**take(arguments, forecast))
        found["advice"] = _advice(found["forecast"])
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    for title, values in found.items():
        print(title)
        for name, value in values.items():
            print(f"  {name:28} {value}")


def _machine() -> dict[str, Any]:
    device = resolve_device("auto")
    precision = resolve_precision("auto", device)
    free, memory = _memory()
    return {
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "cores": f"{cpu_cores()} of {os.cpu_count()} for this process, {torch.get_num_threads()} threads",
        "memory": f"{free:.1f} GiB free of {memory:.1f}",
        "accelerators": ", ".join(map(cuda.get_device_name, range(cuda.device_count()))) or "none",
        "device": str(device),
        "precision": f"{precision} ({'faster here than fp32' if precision == 'bf16' else 'bf16 is not faster here'})",
    }


def _packages() -> dict[str, str]:
    return {name: version_of(name) or f"not installed: pip install {install}" for name, install in _PACKAGES.items()}


def _folders() -> dict[str, str]:
    places = {"neurenix cache": cache_folder(), "hub cache": hub_cache(), "runs": runs_root()}
    return {name: f"{path} ({_size(path):.2f} GiB; {_free_disk(path):.1f} GiB free)" for name, path in places.items()}


def _advice(job: dict[str, Any]) -> dict[str, str]:
    free, _ = _memory()
    fits = job["peak memory GiB"] < free
    room = job["disk for checkpoints GiB"] < _free_disk(runs_root())
    return {
        "memory": "enough" if fits else "too little: take a smaller --batch_size with more --accumulation_steps",
        "disk": "enough" if room else f"too little for checkpoints at {runs_root()}: make room, or choose --output",
    }


def _memory() -> tuple[float, float]:
    """(available, total) GiB of main memory; NaN where the system does not say."""
    listing = Path("/proc/meminfo")
    if not listing.is_file():
        return float("nan"), float("nan")
    lines = dict(line.split(":", 1) for line in listing.read_text().splitlines() if ":" in line)
    return free_memory(torch.device("cpu")) / _GIB, int(lines["MemTotal"].split()[0]) * 1024 / _GIB


def _peak_memory(tuner: Finetuner) -> float:
    """GiB that this process, or the model's device, has needed at most."""
    device = next(tuner.model.parameters()).device
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / _GIB
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _GIB


def _size(path: Path) -> float:
    files = (file for file in path.rglob("*") if file.is_file() and not file.is_symlink())
    return sum(file.stat().st_size for file in files) / _GIB


def _free_disk(path: Path) -> float:
    existing = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
    return shutil.disk_usage(existing).free / _GIB
