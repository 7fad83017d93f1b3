"""Which backend runs a job: by a short measurement, kept for this machine, and only where the answers agree."""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from ..devices import cpu_cores
from ..errors import DamagedFileError, MissingPackageError
from ..storage import cache_folder, read_json, write_json
from ._backend import (
    BACKENDS,
    CannotBuild,
    Forward,
    Inputs,
    Outputs,
    check_backend,
    device_of,
    eager,
    first_of,
    named,
    size_of,
)
from ._operations import operations_by_kind

_FAITHFUL = {"fp32": 0.99999, "bf16": 0.99, "fp16": 0.99}  # least cosine to fp32, per sample
_COMPARED = 4  # samples
_TIMED = 8  # images that eager is timed with
_SECONDS = 3.0  # a job of fewer, run eagerly on a small machine, is not worth a measurement
_OPERATIONS_PER_SECOND = 4e10
_WORTH = 1.1  # times faster than eager, below which eager is taken
_NEVER = 1e9  # seconds per sample of a backend that cannot run the module
_EAGER = "eager"


@final
@dataclass(frozen=True)
class _Job:
    module: nn.Module
    example: Inputs
    precision: str
    samples: float
    say: Callable[[str], None]

    @property
    def device(self) -> torch.device:
        return device_of(self.example)

    def eager(self) -> Forward:
        return eager(self.module, self.device, self.precision)

    @functools.cached_property
    def looked_at(self) -> _Look:
        """A run of eager torch in fp32 over the samples that are compared."""
        few, found = first_of(self.example, _COMPARED), dict[str, Tensor]()
        run = eager(self.module, self.device, "fp32")
        every, convolutions = operations_by_kind(lambda: found.update(named(run(few))))
        return _Look(found, every / size_of(few), convolutions > every / 2)


@final
@dataclass(frozen=True)
class _Look:
    """outputs: of the samples. operations: of one of them. convolves: most of those are convolutions."""

    outputs: dict[str, Tensor]
    operations: float
    convolves: bool


def fast_forward(
    module: nn.Module,
    example: Inputs,
    *,
    samples: float,
    precision: str,
    backend: str = "auto",
    say: Callable[[str], None] = lambda message: None,
) -> Forward:
    """The module's forward pass without gradients, by the backend that finishes `samples` samples first.

    module: in the modes that it is to run in; its weights must not change while the result is used.
    example: a real batch, on the device. samples: how many like its own there are, see data.work.
    precision: "fp32", "bf16" or "fp16": what numbers may be computed in.
    backend: "auto", "eager" or a key of BACKENDS. "auto" measures nothing for jobs of less than about three seconds.
    What a backend gives for the first samples has to agree with eager fp32 (cosine 0.99 per sample, 0.99999 for
    precision "fp32"); else it is passed over, and `say` is told.
    Raises UnknownNameError; CannotBuild and MissingPackageError for a backend that was asked for by name.
    """
    job = _Job(module, example, precision, samples, say)
    backend = check_backend(backend)
    if backend == _EAGER:
        return job.eager()
    if backend != "auto":
        return _built(backend, job)
    return _fastest(job) if _is_large(job) else job.eager()


def _is_large(job: _Job) -> bool:
    """Whether the job takes long enough for a measurement, by counted work, so that the answer is always the same."""
    return size_of(job.example) > 1 and job.looked_at.operations * job.samples >= _SECONDS * _OPERATIONS_PER_SECOND


def _built(name: str, job: _Job) -> Forward:
    """A backend that was asked for by name; eager where it does not give the same."""
    forward = BACKENDS[name].build(job.module, job.example, job.precision)
    cosine = _cosine(forward(first_of(job.example, _COMPARED)), job)
    if cosine < _FAITHFUL[job.precision]:
        job.say(f"backend {name} is not used: its answers have a cosine of {cosine:.5f} to fp32")
        return job.eager()
    return forward


def _fastest(job: _Job) -> Forward:
    """Try backends, those with the largest expected gain first, as long as one can still pay."""
    known = _Measurements(job)
    eager_seconds = known.of(_EAGER, lambda: _eager_seconds(job))
    best, best_seconds, best_name = job.eager(), eager_seconds, _EAGER
    hopes = {name: BACKENDS[name].hope(job.looked_at.convolves, job.precision) for name in BACKENDS}
    candidates = [name for name in hopes if hopes[name] and BACKENDS[name].usable(job.device.type, job.precision)]
    for name in sorted(candidates, key=lambda name: -hopes[name]):
        candidate = BACKENDS[name]
        hoped = eager_seconds / hopes[name] if name not in known.seconds else known.seconds[name]
        if candidate.build_seconds + hoped * job.samples >= best_seconds / _WORTH * job.samples:
            continue
        forward = _tried(name, job, known)
        if forward is None:
            continue
        seconds = known.of(name, lambda: _seconds(forward, job.example))  # noqa: B023  (called at once)
        if seconds < best_seconds / (_WORTH if best_name == _EAGER else 1.0):
            best, best_seconds, best_name = forward, seconds, name
    known.write()
    if best_name != _EAGER:
        job.say(f"forward passes by {best_name}, {eager_seconds / best_seconds:.1f} times as fast as eager torch")
    return best


def _tried(name: str, job: _Job, known: _Measurements) -> Forward | None:
    """A backend that can be built and gives the same, or None, and why not is told."""
    try:
        forward = BACKENDS[name].build(job.module, job.example, job.precision)
        outputs = forward(first_of(job.example, _COMPARED))
    except (CannotBuild, MissingPackageError) as error:
        job.say(f"backend {name} is passed over: {error}")
        known.seconds[name] = _NEVER
        return None
    cosine = _cosine(outputs, job)
    if cosine < _FAITHFUL[job.precision]:
        job.say(f"backend {name} is passed over: its answers have a cosine of {cosine:.5f} to fp32")
        known.seconds[name] = _NEVER  # also for other weights of this shape: a build can take half a minute
        return None
    return forward


def _cosine(outputs: Outputs, job: _Job) -> float:
    """The least cosine, over samples and outputs, to what eager torch gives in fp32; 0 where whole numbers differ."""
    found = named(outputs)
    return min(_agreement(found[name], tensor) for name, tensor in job.looked_at.outputs.items())


def _agreement(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape or not found.is_floating_point():
        return float(torch.equal(found, expected))
    one, other = found.double().flatten(1), expected.double().flatten(1)
    return float(torch.cosine_similarity(one, other).min()) if len(one) and bool(other.any()) else 1.0


def _eager_seconds(job: _Job) -> float:
    """Per sample. Of images a few; texts all, because their pace depends on how many there are."""
    if job.precision != "fp32":  # as the look at the job was, so that this run is not the first
        job.eager()(first_of(job.example, _COMPARED))
    return _seconds(job.eager(), first_of(job.example, _TIMED) if isinstance(job.example, Tensor) else job.example)


def _seconds(forward: Forward, batch: Inputs) -> float:
    """Per sample. forward: has been run before."""
    started = time.perf_counter()
    forward(batch)
    if device_of(batch).type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / size_of(batch)


@final
class _Measurements:
    """Seconds per sample of each backend, for a module of this shape on this machine; the same choice next time.

    Weights do not matter: only what decides the pace is in the name.
    """

    def __init__(self, job: _Job) -> None:
        digest = hashlib.sha256(repr(_described(job)).encode()).hexdigest()
        self._path = cache_folder() / "backends" / f"{digest[:32]}.json"
        self.seconds: dict[str, float] = self._read()
        self._before = dict(self.seconds)

    def of(self, name: str, measure: Callable[[], float]) -> float:
        """What is known, or is measured now."""
        if name not in self.seconds:
            self.seconds[name] = measure()
        return self.seconds[name]

    def write(self) -> None:
        """Keep what was measured; a folder that cannot be written to is no reason to stop."""
        if self.seconds != self._before:
            try:
                write_json(self._path, self.seconds)
            except OSError:
                return

    def _read(self) -> dict[str, float]:
        if not self._path.is_file():
            return {}
        try:
            found: Any = read_json(self._path)
        except (DamagedFileError, OSError):
            return {}
        fits = isinstance(found, dict) and all(isinstance(value, float) and value > 0 for value in found.values())
        return found if fits else {}


def _described(job: _Job) -> list[Any]:
    inputs = {name: tuple(tensor.shape) for name, tensor in named(job.example).items()}  # type: ignore[arg-type]
    return [
        [(name, tuple(parameter.shape)) for name, parameter in job.module.named_parameters()],
        [type(part).__name__ for part in job.module.modules()],
        inputs,
        job.precision,
        str(job.device),
        torch.__version__,
        torch.get_num_threads(),
        cpu_cores(),
    ]
