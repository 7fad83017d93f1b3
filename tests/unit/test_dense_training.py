"""Heads that bring their own losses, through the one loop: trained, measured, resumed, saved, misused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

import pytest
import torch
from torch import Tensor, nn

from neurenix.errors import ConfigurationError, LabelMismatchError
from neurenix.models import PretrainedModel
from neurenix.nn import Pool, TaskHead
from neurenix.transfer import BiasTuner, Finetuner, predict

SIDE, CLASSES = 12, 3


class PixelHead(TaskHead):
    """One class for each pixel."""

    task: ClassVar[str] = "segmentation"

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.classify = nn.Conv2d(8, outputs, 1)

    @property
    def num_outputs(self) -> int:
        return self.classify.out_channels

    def forward(self, features: Tensor, inputs: Tensor) -> Tensor:
        return self.classify(features)

    def losses(self, features: Tensor, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {"cross_entropy": nn.functional.cross_entropy(self(features, inputs), targets, ignore_index=255)}

    def for_classes(self, num_outputs: int) -> Self:
        return type(self)(num_outputs)


class BoxHead(TaskHead):
    """One box around what is bright, of the class of its colour; its targets are a mapping."""

    task: ClassVar[str] = "detection"

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.box, self.kind = nn.Linear(8, 4), nn.Linear(8, outputs)

    @property
    def num_outputs(self) -> int:
        return self.kind.out_features

    def forward(self, features: Tensor, inputs: Tensor) -> list[dict[str, Tensor]]:
        pooled = features.mean((2, 3))
        scores, labels = self.kind(pooled).softmax(1).max(1)
        boxes = self.box(pooled) * SIDE
        return [
            {"boxes": boxes[row : row + 1], "scores": scores[row : row + 1], "labels": labels[row : row + 1]}
            for row in range(len(pooled))
        ]

    def losses(self, features: Tensor, inputs: Tensor, targets: Any) -> dict[str, Tensor]:
        pooled = features.mean((2, 3))
        return {
            "box": nn.functional.l1_loss(self.box(pooled), targets["boxes"][:, 0] / SIDE),
            "kind": nn.functional.cross_entropy(self.kind(pooled), targets["labels"][:, 0]),
        }

    def for_classes(self, num_outputs: int) -> Self:
        return type(self)(num_outputs)


def model_with(head: TaskHead | None) -> PretrainedModel:
    trunk = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
    return PretrainedModel(trunk=trunk, pool=Pool("avg"), head=head, feature_size=8, stages=("trunk.0", "trunk.2"))


def scenes(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pictures with a square of one of two colours; 0 is the ground, and one row of pixels has no class."""
    generator = torch.Generator().manual_seed(seed)
    images, masks = torch.zeros(count, 3, SIDE, SIDE), torch.zeros(count, SIDE, SIDE, dtype=torch.long)
    for row in range(count):
        kind = row % 2
        top, left = torch.randint(1, SIDE - 6, (2,), generator=generator).tolist()
        images[row, kind, top : top + 5, left : left + 5] = 1
        masks[row, top : top + 5, left : left + 5] = kind + 1
    masks[:, 0] = 255
    return images + 0.05 * torch.randn(images.shape, generator=generator), masks


class Boxes:
    """The same as boxes."""

    classes = ("red", "green")

    def __init__(self, count: int, seed: int) -> None:
        self.images, masks = scenes(count, seed)
        self.masks = torch.where(masks == 255, 0, masks)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        rows, columns = self.masks[index].nonzero(as_tuple=True)
        box = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
        return self.images[index], {"boxes": box[None], "labels": self.masks[index].max()[None] - 1}


def tuner_of(head: TaskHead, num_classes: int = CLASSES, **options: Any) -> Finetuner:
    torch.manual_seed(0)
    return Finetuner(model_with(head), num_classes=num_classes, learning_rate=0.02, **options)


def test_pixels_are_learnt_and_measured() -> None:
    tuner = tuner_of(PixelHead(21), metrics=["mean_iou", "pixel_accuracy"], precision="fp32")
    assert (tuner.num_outputs, tuner.task, tuner.settings.loss) == (CLASSES, "segmentation", "own")
    test = scenes(16, seed=1)
    before = tuner.evaluate(test)
    history = tuner.fit(scenes(64, seed=0), test, epochs=6, batch_size=8, run=False)
    assert {"loss", "val_loss", "val_mean_iou", "val_pixel_accuracy"} <= set(history.epochs[-1])
    assert "mean_iou" not in history.epochs[-1]  # answers are computed in evaluation alone
    after = tuner.evaluate(test)
    assert after["loss"] < before["loss"] / 3
    assert after["mean_iou"] > 0.8
    answers = tuner.predict(test[0])
    assert len(answers) == 16 and torch.equal(answers[3], tuner.model.eval()(test[0])[3])


def test_boxes_are_learnt_with_their_names() -> None:
    tuner = tuner_of(BoxHead(5), num_classes=2)
    history = tuner.fit(Boxes(64, seed=0), Boxes(16, seed=1), epochs=3, batch_size=8, run=False)
    assert history["val_loss"][-1] < history["val_loss"][0]
    assert 0 <= history["val_mean_average_precision_50"][-1] <= 1
    assert tuner.model.categories == Boxes.classes
    answers = tuner.predict(Boxes(4, seed=2))
    assert [set(answer) for answer in answers] == [{"boxes", "scores", "labels"}] * 4


def test_classes_in_another_order_are_renumbered() -> None:
    tuner = tuner_of(BoxHead(5), num_classes=2)
    tuner.fit(Boxes(16, seed=0), epochs=1, batch_size=8, run=False)
    turned = Boxes(16, seed=1)
    turned.classes = ("green", "red")  # type: ignore[misc]
    turned.masks = torch.where(turned.masks > 0, 3 - turned.masks, 0)
    assert tuner.evaluate(turned)["loss"] == pytest.approx(tuner.evaluate(Boxes(16, seed=1))["loss"], rel=1e-5)


def test_a_killed_fit_ends_with_the_same_bits() -> None:
    assert tuner_of(PixelHead(2)).resume_check(scenes(32, seed=0), scenes(8, seed=1), batch_size=8).same


def test_saved_and_loaded(tmp_path: Path) -> None:
    tuner = tuner_of(PixelHead(4))
    tuner.fit(scenes(16, seed=0), epochs=1, batch_size=8, run=False)
    tuner.save(tmp_path / "saved")
    again = Finetuner.load(tmp_path / "saved", model=model_with(PixelHead(4)))
    images, _ = scenes(4, seed=3)
    with torch.no_grad():
        assert torch.equal(again.model.eval()(images), tuner.model.eval()(images))
    assert again.settings == tuner.settings


def test_frozen_layers_keep_every_byte_and_small_methods_work() -> None:
    tuner = tuner_of(PixelHead(2), freeze_layers=["trunk.0"])
    before = tuner.model.trunk[0].weight.clone()
    tuner.fit(scenes(16, seed=0), epochs=1, batch_size=8, run=False)
    assert torch.equal(tuner.model.trunk[0].weight, before)
    small = BiasTuner(model_with(PixelHead(2)), num_classes=CLASSES)
    small.fit(scenes(16, seed=0), epochs=1, batch_size=8, run=False)
    assert small.task == "segmentation"


def test_the_same_model_can_be_asked_for_one_class_per_picture() -> None:
    tuner = Finetuner(model_with(PixelHead(2)), num_classes=2, loss="cross_entropy")
    images, masks = scenes(16, seed=0)
    tuner.fit((images, masks.where(masks != 255, 0).amax((1, 2)) - 1), epochs=1, batch_size=8, run=False)
    assert tuner.task == "multi_class" and tuner.predict_proba(images).shape == (16, 2)


def test_what_a_model_answers_before_it_is_tuned() -> None:
    model, (images, _) = model_with(PixelHead(3)), scenes(5, seed=0)
    answers = predict(model, images)
    assert not any(answer.requires_grad for answer in answers)
    assert [tuple(answer.shape) for answer in answers] == [(3, SIDE, SIDE)] * 5
    with pytest.raises(ConfigurationError, match="has no head here"):
        predict(model_with(None), images)


def test_misuse_is_named() -> None:
    with pytest.raises(ConfigurationError, match="loss='own' is for models loaded with a head"):
        Finetuner(model_with(None), num_classes=2, loss="own")
    with pytest.raises(ConfigurationError, match="class_weights is for classification"):
        tuner_of(PixelHead(2), class_weights="balanced")
    with pytest.raises(ConfigurationError, match="lp_ft"):
        tuner_of(PixelHead(2), strategy="lp_ft")
    with pytest.raises(ConfigurationError, match="predict_proba is for classification"):
        tuner_of(PixelHead(2)).predict_proba(scenes(2, seed=0)[0])
    with pytest.raises(LabelMismatchError, match=r"class number 1, but the head tells 1 apart"):
        tuner_of(BoxHead(2), num_classes=1).fit(list(Boxes(8, seed=0)), epochs=1, run=False)
    with pytest.raises(LabelMismatchError, match="the targets are boxes, labels"):
        Finetuner(model_with(None), num_classes=2).fit(Boxes(8, seed=0), epochs=1, run=False)
