"""Which backend runs a job: by a short measurement, kept for this machine, and only where the answers agree."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from ..devices import cpu_cores, cpu_flags, is_out_of_memory
from ..errors import DamagedFileError, MissingPackageError, NeurenixError
from ..packages import version_of
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
    has_doubles,
    named,
    second_half_of,
    shapes_of,
    size_of,
)
from ._work import counted, pace

_EXACT, _FAITHFUL = 0.99999, 0.99  # least cosine to fp32, per sample: where its digits are asked for, and else
_COMPARED = 4  # samples
_TIMED = 4  # images that eager is timed with
_SECONDS = 3.0  # a job of fewer, run eagerly on a small device, is not worth a measurement
_SHORT = 0.5  # seconds of a run that is timed twice, where once does not settle it
_WORTH = 1.1  # times faster than eager, below which eager is taken
_NEVER, _FAILED = 1e9, 1e8  # seconds per sample of a backend whose answers are too far, and that cannot run the module
_DAY = 86_400.0  # seconds
_LEFT_OUT = {
    _NEVER: "its answers for a model of this shape were too far from fp32",
    _FAILED: "within the last day it could not run a model of this shape",
}
_EAGER = "eager"


@final
@dataclass(frozen=True)
class _Job:
    module: nn.Module
    example: Inputs
    precision: str
    exact: bool
    samples: float
    arranged: Callable[[Inputs], Inputs]
    say: Callable[[str], None]

    @property
    def device(self) -> torch.device:
        return device_of(self.example)

    @property
    def faithful(self) -> float:
        """Least cosine to fp32, per sample."""
        return _EXACT if self.exact else _FAITHFUL

    @property
    def timed(self) -> Inputs:
        """What backends are timed with; half of a batch of texts, which take long, is wide enough."""
        return self.example if isinstance(self.example, Tensor) else second_half_of(self.example)

    def eager(self) -> Forward:
        """Eager torch for the whole job."""
        return _Eager(eager(self.module, self.device, self.precision), self.arranged)

    @functools.cached_property
    def looked_at(self) -> _Look:
        """A run of eager torch in fp32 over the samples that are compared."""
        few, found = first_of(self.example, _COMPARED), dict[str, Tensor]()
        run = eager(self.module, self.device, "fp32")
        done = counted(lambda: found.update(named(run(few))))
        return _Look(found, done.operations / size_of(few), done.convolutions > done.operations / 2)


@final
@dataclass(frozen=True)
class _Eager:
    """Runs batches as they are best arranged."""

    run: Forward
    arranged: Callable[[Inputs], Inputs]

    def __call__(self, inputs: Inputs) -> Outputs:
        return self.run(self.arranged(inputs))


def is_eager(forward: Forward) -> bool:
    """Whether fast_forward found nothing faster than torch as it is."""
    return isinstance(forward, _Eager)


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
    exact: bool = True,
    backend: str = "auto",
    arranged: Callable[[Inputs], Inputs] = lambda inputs: inputs,
    say: Callable[[str], None] = lambda message: None,
) -> Forward:
    """The module's forward pass without gradients, by the backend that finishes `samples` samples first.

    module: in the modes that it is to run in; its weights must not change while the result is used.
    example: a real batch, on the device. samples: how many like its own there are, see data.work.
    precision: "fp32", "bf16" or "fp16": what torch computes in. exact: whether answers in fp32 have to have its digits,
        see devices.is_exact; those in the others never have them.
    backend: "auto", "eager" or a key of BACKENDS. "auto" measures nothing for jobs of less than about three seconds.
    arranged: lays a batch out in memory as eager torch is to have it, where the job is given to that.
    What a backend gives for the first samples has to agree with eager fp32 (cosine 0.99 per sample, 0.99999 where it
    has to be exact); else it is passed over, and `say` is told.
    Raises UnknownNameError; CannotBuild and MissingPackageError for a backend that was asked for by name.
    """
    job = _Job(module, example, precision, exact and precision == "fp32", samples, arranged, say)
    backend = check_backend(backend)
    if backend == _EAGER:
        return job.eager()
    if backend != "auto":
        return _built(backend, job)
    return _fastest(job) if _is_large(job) else job.eager()


def _is_large(job: _Job) -> bool:
    """Whether the job takes long enough for a measurement, by counted work, so that the answer is always the same."""
    if size_of(job.example) < 2 or has_doubles(job.module):
        return False
    return job.looked_at.operations * job.samples >= _SECONDS * pace(job.device)


def _built(name: str, job: _Job) -> Forward:
    """A backend that was asked for by name; eager where it does not give the same."""
    if BACKENDS[name].rounds and job.exact:
        raise CannotBuild(f"backend {name!r} computes in fewer digits than precision='fp32' asks for")
    forward, cosine = _compared(name, job, eager(job.module, job.device, "fp32"))
    if cosine < job.faithful:
        job.say(f"backend {name} is not used: its answers have a cosine of {cosine:.5f} to fp32")
        return job.eager()
    return _where_it_fits(name, forward, job)


def _where_it_fits(name: str, forward: Forward, job: _Job) -> Forward:
    """Eager torch for batches that a backend was not built for, because their samples have other shapes."""
    if BACKENDS[name].any_shape:
        return forward
    built_for, rest = shapes_of(job.example), job.eager()
    return lambda inputs: (forward if shapes_of(inputs) == built_for else rest)(inputs)


def _fastest(job: _Job) -> Forward:
    """Try backends, those first that may finish first, as long as one can still pay."""
    known = _Measurements(job)
    eager_seconds = known.of(_EAGER, lambda: _eager_seconds(job))
    best, best_seconds, best_name = job.eager(), eager_seconds, _EAGER
    expected = _expected_seconds(job, eager_seconds, known)
    for name in sorted(expected, key=lambda name: expected[name]):
        if expected[name] >= best_seconds / _WORTH * job.samples:
            continue
        reference = best if job.precision == "fp32" else eager(job.module, job.device, "fp32")
        forward = _tried(name, job, known, reference, best_seconds)
        if forward is None:
            continue
        seconds = known.seconds[name]
        if seconds < best_seconds / (_WORTH if best_name == _EAGER else 1.0):
            best, best_seconds, best_name = _where_it_fits(name, forward, job), seconds, name
    known.write()
    if best_name != _EAGER:
        job.say(f"forward passes by {best_name}, {eager_seconds / best_seconds:.1f} times as fast as eager torch")
    return best


def _expected_seconds(job: _Job, eager_seconds: float, known: _Measurements) -> dict[str, float]:
    """Of each backend that can be tried: to build it, and to run the job by it, as far as it is known or hoped."""
    expected = {}
    for name, candidate in BACKENDS.items():
        hope = candidate.hope(job.looked_at.convolves, job.precision)
        if hope and _is_candidate(name, job):
            each = known.seconds.get(name, eager_seconds / hope)
            if each in _LEFT_OUT:
                job.say(f"backend {name} is left out: {_LEFT_OUT[each]}")
                continue
            expected[name] = candidate.build_seconds + each * job.samples
    return expected


def _is_candidate(name: str, job: _Job) -> bool:
    return BACKENDS[name].usable(job.device.type, job.precision) and not (BACKENDS[name].rounds and job.exact)


def _tried(name: str, job: _Job, known: _Measurements, reference: Forward, best: float) -> Forward | None:
    """A backend that can be built, gives the same as the reference and was timed; or None, and why not is told."""
    try:
        forward, cosine = _compared(name, job, reference)
        with _named_errors(name):
            known.of(name, lambda: _seconds(forward, job.timed, best))
    except (CannotBuild, MissingPackageError) as error:
        job.say(f"backend {name} is passed over: {error}")
        known.seconds[name] = _FAILED
        return None
    if cosine < job.faithful:
        job.say(f"backend {name} is passed over: its answers have a cosine of {cosine:.5f} to fp32")
        known.seconds[name] = _NEVER  # also for other weights of this shape: a build can take half a minute
        return None
    return forward


def _compared(name: str, job: _Job, reference: Forward) -> tuple[Forward, float]:
    """A backend's forward pass, and its least cosine to the reference; raises CannotBuild and MissingPackageError."""
    with _named_errors(name):
        forward = BACKENDS[name].build(job.module, job.example, job.precision)
        return forward, _cosine(name, forward, job, reference)


@contextlib.contextmanager
def _named_errors(name: str) -> Iterator[None]:
    """Whatever a backend raises but for a lack of memory is CannotBuild."""
    try:
        yield
    except Exception as error:
        if isinstance(error, NeurenixError) or is_out_of_memory(error):
            raise
        # a runtime's own, or that of a forward that cannot do without autocast
        reason = " ".join(str(error).split())[:200]
        raise CannotBuild(f"{name} cannot run it ({type(error).__name__}: {reason})") from error


def _cosine(name: str, forward: Forward, job: _Job, reference: Forward) -> float:
    """The least cosine, over samples and outputs, to what torch gives in fp32; 0 where whole numbers differ.

    Rounding moves some samples far more than others, so a backend that rounds answers for the second half of the batch,
    which nothing was set by.
    """
    rounds = BACKENDS[name].rounds
    some = second_half_of(job.example) if rounds else first_of(job.example, _COMPARED)
    found, expected = named(forward(some)), named(reference(some)) if rounds else job.looked_at.outputs
    return min(_agreement(found[key], tensor) for key, tensor in expected.items())


def _agreement(found: Tensor, expected: Tensor) -> float:
    """The least cosine of two rows; rows of zeros agree with rows of zeros, and numbers with what is none never."""
    if found.shape != expected.shape or not found.is_floating_point():
        return float(torch.equal(found, expected))
    one, other = found.double().flatten(1), expected.double().flatten(1)
    if not bool(one.isfinite().all() & other.isfinite().all()):
        return 0.0
    cosines = torch.cosine_similarity(one, other)
    empty = ~other.any(1)
    cosines[empty] = (~one[empty].any(1)).to(cosines.dtype)
    return float(cosines.min()) if len(cosines) else 1.0


def _eager_seconds(job: _Job) -> float:
    """Per sample. Of images a few; texts as many as backends are timed with, as their pace depends on the number.

    As they come: to find out how they may be arranged takes time, and backends that arrange them are measured too.
    """
    run = eager(job.module, job.device, job.precision)
    if job.precision != "fp32":  # as the look at the job was, so that this run is not the first
        run(first_of(job.example, _COMPARED))
    return _seconds(run, first_of(job.example, _TIMED) if isinstance(job.example, Tensor) else job.timed)


def _seconds(forward: Forward, batch: Inputs, best: float = math.inf) -> float:
    """Per sample; of a short run that is not twice as fast as the best, the faster of two: data workers slow some."""
    taken = _run_seconds(forward, batch)
    if taken < _SHORT and taken / size_of(batch) > best / 2:
        taken = min(taken, _run_seconds(forward, batch))
    return taken / size_of(batch)


def _run_seconds(forward: Forward, batch: Inputs) -> float:
    started = time.perf_counter()
    forward(batch)
    if device_of(batch).type == "cuda":
        torch.cuda.synchronize(device_of(batch))
    return time.perf_counter() - started


@final
class _Measurements:
    """Seconds per sample of each backend, for a module of this shape on this machine; the same choice next time.

    Weights do not matter: only what decides the pace is in the name. That a backend could not run it is believed for a
    day: a compiler may have been missing, or memory short.
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
            is_old = time.time() - self._path.stat().st_mtime > _DAY
        except (DamagedFileError, OSError):
            return {}
        if not isinstance(found, dict) or not all(isinstance(value, float) and value > 0 for value in found.values()):
            return {}
        return {name: value for name, value in found.items() if value != _FAILED or not is_old}


def _described(job: _Job) -> list[Any]:
    inputs = {name: tuple(tensor.shape) for name, tensor in named(job.example).items()}
    return [
        [(name, tuple(parameter.shape)) for name, parameter in job.module.named_parameters()],
        [type(part).__name__ for part in job.module.modules()],
        inputs,
        job.precision,
        job.exact,
        str(job.device),
        torch.__version__,
        [version_of(package) for package in ("openvino", "onnxruntime")],
        sorted(cpu_flags()),
        torch.get_num_threads(),
        cpu_cores(),
    ]
