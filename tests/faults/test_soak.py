"""Thousands of steps: memory, open files and temporary files do not grow."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from tests.faults.children import PROVE
from torch import nn

from neurenix.callbacks import Callback
from neurenix.transfer import Finetuner

STEPS = 10_000 if PROVE else 1_200
_MEBIBYTE = 1 << 20


class Watch(Callback):
    """Resident memory in bytes and number of open files, after a warm-up and at the end."""

    def __init__(self, warm: int) -> None:
        self.warm = warm
        self.seen: list[tuple[int, int]] = []

    def on_train_batch_end(self, batch: int, logs: Any) -> None:
        if self.run.steps in (self.warm, STEPS - 1):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.seen.append((pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd"))))


def test_nothing_grows(tmp_path: Path) -> None:
    samples = 8 * 40
    torch.manual_seed(0)
    data = [(torch.randn(16), index % 3) for index in range(samples)]
    model = nn.Sequential(nn.Linear(16, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 3))
    tuner = Finetuner(model, None, learning_rate=1e-3, ema_decay=0.99, metrics=["accuracy"])
    watch = Watch(STEPS // 5)
    tuner.fit(
        data, data[:16], batch_size=8, epochs=STEPS // 40, callbacks=[watch], run=tmp_path / "run", checkpoint_every=25
    )
    (memory, files), (memory_at_end, files_at_end) = watch.seen
    print(f"{STEPS} steps: {(memory_at_end - memory) / _MEBIBYTE:+.1f} MiB, {files_at_end - files:+d} open files")
    assert memory_at_end - memory < 20 * _MEBIBYTE
    assert files_at_end == files
    assert not list(tmp_path.rglob(".*"))
