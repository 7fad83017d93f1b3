"""Scenes to detect and segment: handwritten digits scattered over photographs, both as scikit-learn carries them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image

from neurenix.data import ListDataset, MaskFolder

DIGITS = (0, 4, 7)  # three that stay themselves in a mirror, as augmentation shows them
CLASSES = [f"digit {digit}" for digit in DIGITS]
CELL = 32  # pixels; each holds one digit at most, so that none covers another
_OLD = 1200  # digits up to here are for training, those behind, by other writers, for tests


@dataclass(frozen=True, kw_only=True)
class Scene:
    """image: (side, side, 3). mask: (side, side), 0 for ground, 1 for the strokes of digits. boxes: x1 y1 x2 y2."""

    image: np.ndarray
    mask: np.ndarray
    boxes: list[tuple[int, int, int, int]]
    labels: list[int]


class DigitScenes:
    """Makes scenes of one seed. unseen: from digits and from parts of the photographs that other scenes never show."""

    def __init__(self, *, side: int, seed: int, unseen: bool = False) -> None:
        from sklearn.datasets import load_digits, load_sample_images

        known = load_digits()
        part = slice(_OLD, None) if unseen else slice(None, _OLD)
        images, digits = known.images[part], known.target[part]
        self.strokes = [images[digits == digit] / 16 for digit in DIGITS]
        edge = 380  # of 640 columns: what lies left of it is for training
        self.grounds = [
            photograph[:, edge:] if unseen else photograph[:, :edge] for photograph in load_sample_images().images
        ]
        self.side, self.draw = side, Random(seed)

    def scene(self) -> Scene:
        """One to four digits, light on dark ground and dark on light, each in a colour of its own."""
        draw, side = self.draw, self.side
        image = self._ground()
        mask, boxes, labels = np.zeros((side, side), dtype=np.uint8), [], []
        cells = [(left, top) for top in range(0, side, CELL) for left in range(0, side, CELL)]
        for left, top in draw.sample(cells, draw.randint(1, min(4, len(cells)))):
            labels.append(draw.randrange(len(DIGITS)))
            ink = self._ink(labels[-1], draw.randint(22, CELL))
            left += draw.randint(0, CELL - ink.shape[1])
            top += draw.randint(0, CELL - ink.shape[0])
            place = (slice(top, top + ink.shape[0]), slice(left, left + ink.shape[1]))
            image[place] += ink[..., None] * (self._colour(image[place]) - image[place])
            mask[place][ink > 0.5] = 1
            rows, columns = np.nonzero(ink > 0.5)
            box = (left + columns.min(), top + rows.min(), left + columns.max() + 1, top + rows.max() + 1)
            boxes.append(tuple(map(int, box)))
        return Scene(image=image.round().astype(np.uint8), mask=mask, boxes=boxes, labels=labels)

    def with_boxes(self, count: int) -> ListDataset:
        """Images and {"boxes": (k, 4), "labels": (k,)}."""
        scenes = [self.scene() for _ in range(count)]
        targets = [
            {"boxes": torch.tensor(scene.boxes, dtype=torch.float32), "labels": torch.tensor(scene.labels)}
            for scene in scenes
        ]
        return ListDataset([scene.image for scene in scenes], targets, CLASSES)

    def with_masks(self, count: int, root: Path) -> MaskFolder:
        """The same as PNG files, written to two folders below `root`."""
        for number in range(count):
            scene = self.scene()
            for name, pixels in (("images", scene.image), ("masks", scene.mask)):
                (root / name).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(root / name / f"{number:03}.png")
        return MaskFolder(root, classes=["ground", "digit"])

    def _ground(self) -> np.ndarray:
        photograph = self.draw.choice(self.grounds)
        height, width = (size - self.side for size in photograph.shape[:2])
        top, left = self.draw.randint(0, height), self.draw.randint(0, width)
        return photograph[top : top + self.side, left : left + self.side].astype(np.float64)

    def _ink(self, label: int, height: int) -> np.ndarray:
        """A digit's strokes enlarged to (height, height) and cut to what is drawn: shares of ink in [0, 1]."""
        small = Image.fromarray(self.draw.choice(list(self.strokes[label])).astype(np.float32))
        ink = np.clip(np.asarray(small.resize((height, height), Image.Resampling.BICUBIC)) * 2.5 - 0.75, 0, 1)
        rows, columns = np.nonzero(ink > 0.5)
        return ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].astype(np.float64)

    def _colour(self, ground: np.ndarray) -> np.ndarray:
        shades = (0, 70) if ground.mean() > 128 else (185, 255)
        return np.array([self.draw.randint(*shades) for _ in range(3)])
