"""A program for torch.distributed.run: one fit in several processes, in a run folder.

python -m torch.distributed.run --nproc_per_node 2 fit_in_two.py FOLDER BATCH_SIZE ACCUMULATION PAUSE
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.faults.jobs import Noisy, digest  # noqa: E402

from neurenix.transfer import Finetuner  # noqa: E402


def network() -> nn.Module:
    """Without batch norm, whose statistics are those of each process's own share."""
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()),
        nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(16, 3),
    )


def main(folder: Path, batch_size: int, accumulation_steps: int, pause: float) -> None:
    torch.set_num_threads(1)
    # the launcher terminates the others as soon as one is lost; here they end by the error that the loss itself raises
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    rank = os.environ.get("RANK", "0")
    (folder / f"process-{rank}").write_text(str(os.getpid()))
    tuner = Finetuner(
        network(), num_classes=3, learning_rate=0.01, precision="fp32", accumulation_steps=accumulation_steps
    )
    try:
        tuner.fit(Noisy(37, pause), Noisy(13), batch_size=batch_size, epochs=4, run=folder / "run", checkpoint_every=2)
    finally:
        (folder / f"error-{rank}").write_text(type(sys.exc_info()[1]).__name__)
    weights = {name: tensor.flatten().tolist() for name, tensor in tuner.model.state_dict().items()}
    numbers = [epoch["val_accuracy"] for epoch in tuner.history.epochs]
    answer = {"digest": digest(tuner), "weights": weights, "val_accuracy": numbers}
    (folder / f"answer-{rank}.json").write_text(json.dumps(answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
