"""Too little memory: the batch is computed in parts, to the same gradient, and nothing else changes."""

from __future__ import annotations

import gc
import warnings
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.faults.children import PROVE
from tests.faults.jobs import Noisy, digest
from torch import nn

from neurenix.callbacks import Callback
from neurenix.errors import OutOfMemoryError, SmallerBatchWarning
from neurenix.transfer import Finetuner

MESSAGES = [
    lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    lambda: RuntimeError("CUDA error: out of memory"),
    lambda: RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    lambda: RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried …"),
    MemoryError,
]


class Small(nn.Module):
    """A network for whose middle more than `room` samples are too many, after `start` steps that went well.

    One or two samples are a look at the network, and no step.
    """

    def __init__(self, room: int, error: Any = MESSAGES[0], start: int = 0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.fc = nn.Linear(6, 3)
        self.room, self.error, self.start, self.passes = room, error, start, 0
        self.met: list[weakref.ref[Any]] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.passes += len(images) > 2
        features = self.body(images)
        if len(images) > self.room and self.passes > self.start:
            self.met.append(weakref.ref(features))
            raise self.error()
        return self.fc(features)


def tune(
    network: Small, batch_size: int = 16, accumulation_steps: int = 1, validation: int = 9, **options: Any
) -> Finetuner:
    settings = {"precision": "fp32", "dropout_rate": 0.0, "learning_rate": 0.01, "mixup_alpha": 0.0}
    tuner = Finetuner(network, None, accumulation_steps=accumulation_steps, **{**settings, **options})
    tuner.fit(Noisy(40), Noisy(validation), batch_size=batch_size, epochs=2, run=False)
    return tuner


CASES = [(room, error) for room in (4, 5, 7) for error in (MESSAGES if PROVE else MESSAGES[:1])]


@pytest.mark.parametrize(("room", "error"), CASES)
def test_finds_the_size_that_fits_and_ends_as_a_run_of_that_size(room: int, error: Any) -> None:
    with pytest.warns(SmallerBatchWarning) as caught:
        tuner = tune(Small(room, error))
    assert [str(entry.message).split()[0] for entry in caught] == ["16", "8"]
    assert digest(tuner) == digest(tune(Small(1000), batch_size=4, accumulation_steps=4))


@pytest.mark.parametrize("start", [2, 3])
def test_memory_that_runs_out_later(start: int) -> None:
    """The failed attempt leaves no trace, in the running statistics of batch norm neither."""
    seen: list[int] = []

    class Count(Callback):
        def on_train_batch_end(self, batch: int, logs: Any) -> None:
            seen.append(batch)

    tuner = Finetuner(Small(8, start=start), None, precision="fp32", learning_rate=0.01)
    with pytest.warns(SmallerBatchWarning):
        tuner.fit(Noisy(40), batch_size=16, epochs=2, callbacks=[Count()], run=False)
    assert seen == [0, 1, 2, 0, 1, 2]
    # 3 batches and their second halves: one count for each of 10 successful forward passes, none for the failed one
    rest = [16, 16, 8, 16, 16, 8][start:]
    counted = start + sum(1 if size <= 8 else 2 for size in rest)
    assert int(tuner.model.state_dict()["trunk.module.body.1.num_batches_tracked"]) == counted


@pytest.mark.parametrize("statistics", ["batch", "pretrained"])
def test_what_smaller_parts_change_is_told(statistics: str) -> None:
    """A batch norm in training sees the part alone."""
    with pytest.warns(SmallerBatchWarning) as caught:
        tune(Small(8), norm_statistics=statistics)
    assert ("but for its batch norms" in str(caught[0].message)) == (statistics != "pretrained")


def test_accumulation_and_augmentation_stay() -> None:
    """Validated in one part, as a mean over other parts may end in other digits."""
    with pytest.warns(SmallerBatchWarning):
        tuner = tune(Small(8), batch_size=16, accumulation_steps=2, validation=8)
    assert digest(tuner) == digest(tune(Small(1000), batch_size=8, accumulation_steps=4, validation=8))


def test_evaluation_and_prediction_need_no_restart() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmallerBatchWarning)
        tuner = tune(Small(4))
    roomy = tune(Small(1000), batch_size=4, accumulation_steps=4)
    inputs = Noisy(37).images
    assert (tuner.predict_proba(inputs, batch_size=32) == roomy.predict_proba(inputs, batch_size=4)).all()
    assert tuner.evaluate((inputs, torch.arange(37) % 3), batch_size=32)["accuracy"] == pytest.approx(
        roomy.evaluate((inputs, torch.arange(37) % 3), batch_size=32)["accuracy"]
    )


def test_nothing_of_a_failed_attempt_is_kept_in_memory() -> None:
    network = Small(4)
    with pytest.warns(SmallerBatchWarning):
        tuner = tune(network)
    gc.collect()
    met = [module.met for module in tuner.model.modules() if isinstance(module, Small)]
    assert all(reference() is None for references in met for reference in references)


def test_when_one_sample_is_too_much() -> None:
    with warnings.catch_warnings(), pytest.raises(OutOfMemoryError, match="with 1 samples at a time on cpu"):
        warnings.simplefilter("ignore", SmallerBatchWarning)
        tune(Small(0, start=2))  # the first passes look whether data and model fit at all


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        tune(Small(4, lambda: RuntimeError("mat1 and mat2 shapes cannot be multiplied")))


def test_the_size_is_kept_when_a_run_goes_on(tmp_path: Path) -> None:
    class Cut(Callback):
        def on_train_batch_end(self, batch: int, logs: Any) -> None:
            if self.run.steps == 2:
                raise KeyboardInterrupt

    def go(*callbacks: Callback) -> Finetuner:
        tuner = Finetuner(Small(4), None, precision="fp32", learning_rate=0.01)
        tuner.fit(Noisy(40), batch_size=16, epochs=2, callbacks=callbacks, run=tmp_path / "run", checkpoint_every=1)
        return tuner

    with pytest.warns(SmallerBatchWarning), pytest.raises(KeyboardInterrupt):
        go(Cut())
    go()  # a second warning would be an error
