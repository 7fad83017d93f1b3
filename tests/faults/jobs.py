"""Fits that other processes run, to be killed: a convolutional network on data that are augmented at random."""

from __future__ import annotations

import functools
import hashlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from neurenix.callbacks import CSVLogger, EarlyStopping, ModelCheckpoint
from neurenix.storage import tensor_digest
from neurenix.transfer import Finetuner

STEPS = 6 * 8  # epochs, steps of each


class Noisy(torch.utils.data.Dataset[Any]):
    """Every sample is another one in every epoch. pause: seconds that one takes to read."""

    def __init__(self, count: int, pause: float = 0.0) -> None:
        self.images = torch.randn(count, 3, 9, 9, generator=torch.Generator().manual_seed(count))
        self.pause = pause

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        time.sleep(self.pause)
        image = self.images[index]
        return image + 0.1 * torch.randn(image.shape), index % 3


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()),
        nn.Sequential(nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Dropout(0.3),
        nn.Linear(16, 3),
    )


def digest(tuner: Finetuner) -> str:
    """One hash over weights, buffers, moments and the numbers of every epoch."""
    parts = [f"{name}{tensor_digest(tensor)}" for name, tensor in tuner.model.state_dict().items()]
    for parameter in tuner.model.parameters():
        state = tuner.optimizer.state.get(parameter, {})
        parts += [tensor_digest(value) for value in state.values() if isinstance(value, torch.Tensor)]
    for epoch in tuner.history.epochs:
        parts.append(repr({name: value for name, value in epoch.items() if name != "seconds"}))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def fit(
    folder: Path, *, pause: float = 0.001, workers: int = 0, every: int = 2, on_save_error: str = "raise"
) -> Finetuner:
    """The same fit each time: progressive unfreezing, accumulation, moving average, mixup, three callbacks."""
    torch.set_num_threads(1)
    tuner = Finetuner(
        network(),
        num_classes=3,
        learning_rate=0.01,
        strategy="progressive",
        accumulation_steps=2,
        ema_decay=0.9,
        mixup_alpha=0.2,
        metrics=["accuracy", "auroc"],
    )
    callbacks = [
        EarlyStopping(patience=50, restore_best_weights=True),
        ModelCheckpoint(folder / "best", save_best_only=True),
        CSVLogger(folder / "log.csv"),
    ]
    tuner.fit(
        Noisy(61, pause),
        Noisy(13),
        batch_size=4,
        epochs=6,
        callbacks=callbacks,
        num_workers=workers,
        run=folder,
        checkpoint_every=every,
        on_save_error=on_save_error,
    )
    return tuner


def fit_until_told(folder: Path, pause: float) -> None:
    """A fit whose process ends as a program of a user's own does: 130 for SIGINT, 143 for SIGTERM."""
    multiprocessing.set_start_method("fork", force=True)
    try:
        fit(folder, pause=pause, every=1000)
    except KeyboardInterrupt:
        sys.exit(130)


def fit_and_tell(folder: Path, answer: Path, aim: tuple[str, int] | None, workers: int = 0) -> None:
    """What a child process does. aim: kill it inside of the n-th call of a function that writes."""
    # data workers are forked as in a process of a user's own; a fork server would keep those of a killed one alive
    multiprocessing.set_start_method("fork", force=True)
    if aim is not None:
        aim_at(*aim)
    answer.write_text(digest(fit(folder, workers=workers)))


def aim_at(place: str, count: int) -> None:
    """SIGKILL in the n-th "write" (half of the bytes are there), before the n-th "rename" or after it ("renamed")."""
    left = [count]

    def killing(call: Callable[..., Any], fatal: Callable[..., None]) -> Callable[..., Any]:
        @functools.wraps(call)
        def wrapper(*arguments: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                fatal(*arguments, **options)
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return wrapper

    write, rename = Path.write_bytes, os.replace
    if place == "write":
        Path.write_bytes = killing(write, lambda path, content: write(path, content[: len(content) // 2]))  # type: ignore[method-assign]
    elif place == "rename":
        os.replace = killing(rename, lambda *arguments: None)
    else:
        os.replace = killing(rename, rename)
