"""Heads that read maps or tokens learn from stored rows what they learn from layers that run each time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import pytest
import torch
from tests.unit.prefix.fits import Cut, CutAfter, Texts, digests, gap, numbers, seeded
from torch import Tensor, nn
from torch.utils.data import Dataset

from neurenix.models import PretrainedModel
from neurenix.nn import Pool, TaskHead
from neurenix.training.prefix.targets import TargetRows
from neurenix.transfer import Finetuner, attach_head, heads
from neurenix.transfer.heads import HeadKind
from neurenix.vision.boxed import collate_boxes

SAID = "the frozen layers run once for each of"
LOOKS = 28  # samples that are read for a look at them, before the first epoch and again after it
SIDE, CLASSES = 32, 3
SEGMENTERS: dict[str, HeadKind] = {
    "linear segmentation": heads.LinearSegmentation(num_outputs=CLASSES),
    "fcn": heads.FCN(num_outputs=CLASSES),
    "unet": heads.UNet(num_outputs=CLASSES, widths=[8]),
}
DETECTORS: dict[str, HeadKind] = {
    "anchor-free": heads.AnchorFree(num_outputs=CLASSES, channels=64, depth=1, finest_stride=4, coarser_levels=False),
    "anchors": heads.Anchors(num_outputs=CLASSES, channels=16, finest_stride=4, coarser_levels=False),
}


class Network(nn.Module):
    """Three strides, with norms that have statistics, and a head that goes."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.Sequential(*(self.stage(*sizes) for sizes in ((3, 6), (6, 8), (8, 12))))
        self.fc = nn.Linear(12, 2)

    @staticmethod
    def stage(before: int, after: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.ReLU(inplace=True))

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.stages(images).mean((2, 3)))


class Scenes(Dataset[Any]):
    """Noise with one to three bright rectangles, as masks or as boxes; each read counted.

    sizes: (height, width) of the images, in turn. flickers: noise of its own in each epoch.
    """

    def __init__(
        self, count: int, boxes: bool, sizes: Sequence[tuple[int, int]] = ((SIDE, SIDE),), flickers: bool = False
    ) -> None:
        self.count, self.boxes, self.sizes, self.flickers, self.reads = count, boxes, sizes, flickers, 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        self.reads += 1
        generator = torch.Generator().manual_seed(index)
        height, width = self.sizes[index % len(self.sizes)]
        image, mask = torch.randn(3, height, width, generator=generator), torch.zeros(height, width, dtype=torch.long)
        labels = torch.arange(1 + index % 3)
        boxes = torch.stack([torch.tensor([2 + 9 * k, 4 + 5 * k, 10 + 9 * k, 15 + 5 * k]) for k in labels.tolist()])
        for label, (left, top, right, bottom) in zip(labels.tolist(), boxes.tolist(), strict=True):
            image[label, top:bottom, left:right] += 3
            mask[top:bottom, left:right] = label
        mask[0] = 255
        image = image + 0.5 * torch.randn(image.shape) if self.flickers else image
        return image, {"boxes": boxes.float(), "labels": labels} if self.boxes else mask

    def collate(self, samples: list[tuple[Tensor, Any]]) -> tuple[Tensor, Any]:
        images, targets = torch.stack([image for image, _ in samples]), [target for _, target in samples]
        return images, collate_boxes(targets, 1) if self.boxes else torch.stack(targets)


class Embedded(nn.Module):
    """Words as tokens that know their neighbours; what stands behind a text's end is no part of it."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.near = nn.Embedding(90, 8), nn.Conv1d(8, 12, 3, padding=1)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        words = self.words(inputs["input_ids"]) * inputs["attention_mask"].unsqueeze(2)
        return self.near(words.transpose(1, 2)).transpose(1, 2).tanh()


class TaggedWords(Texts):
    """A tag for each word but some, or, as a span, the first and the last word."""

    def __init__(self, count: int, spans: bool = False) -> None:
        super().__init__(count, shortest=3)
        self.spans = spans

    def collate(self, samples: Sequence[tuple[Tensor, int]]) -> tuple[dict[str, Tensor], Tensor]:
        inputs, _ = super().collate(samples)
        mask = inputs["attention_mask"]
        inputs["token_type_ids"] = mask * (torch.arange(mask.shape[1]) > 0)
        if self.spans:
            return inputs, torch.stack([torch.ones(len(mask), dtype=torch.long), mask.sum(1) - 2], 1)
        tags = torch.where(inputs["input_ids"] % 7 == 0, -100, inputs["input_ids"] % CLASSES)
        return inputs, tags.where(mask.bool(), -1)


def tokens_model() -> PretrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return PretrainedModel(
            trunk=Embedded(), pool=Pool("avg", channels_last=True), head=None, feature_size=12, stages=("trunk.words",)
        )


def fitted(kind: HeadKind, use: str, data: Any, validation: Any = None, **options: Any) -> Finetuner:
    of_fit = {"epochs": 3, "batch_size": 3, "run": False}
    of_fit = {name: options.pop(name, value) for name, value in of_fit.items()}
    of_fit |= {name: options.pop(name) for name in ("callbacks", "checkpoint_every") if name in options}
    model = tokens_model() if isinstance(data, Texts) else seeded(Network)
    settings = {"strategy": "head", "optimizer": "sgd", "learning_rate": 0.02, "precision": "fp32", "backend": "eager"}
    tuner = Finetuner(attach_head(model, kind), **{**settings, **options}, frozen_prefix=use)
    tuner.fit(data, validation, **of_fit)
    return tuner


def assert_the_same(kind: HeadKind, make: Callable[[], Any], bits: bool = False, **options: Any) -> None:
    """Stored rows and layers that run in every epoch give the same weights; samples are read once, and not always."""
    data = [make() for _ in range(2)]
    stored, ordinary = (
        fitted(kind, use, own, make() if options.get("validated") else None, **_without(options, "validated"))
        for use, own in zip(("always", "never"), data, strict=True)
    )
    epochs, views = options.get("epochs", 3), options.get("augmented_views", 1)
    assert data[0].reads <= views * len(data[0]) + LOOKS and data[1].reads >= epochs * len(data[1])
    assert gap(stored, ordinary) < 1e-6
    assert abs(ordinary.history["loss"][-1] - ordinary.history["loss"][0]) > 1e-3, "nothing was learned"
    if bits:
        assert digests(stored) == digests(ordinary) and numbers(stored) == numbers(ordinary)


def _without(options: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key != name}


@pytest.mark.parametrize("name", SEGMENTERS)
def test_masks_are_learned_to_the_same_bits(name: str) -> None:
    assert_the_same(SEGMENTERS[name], lambda: Scenes(9, False), bits=True, validated=True)


@pytest.mark.parametrize("name", DETECTORS)
def test_boxes_are_learned_alike_however_many_an_image_has(name: str) -> None:
    assert_the_same(DETECTORS[name], lambda: Scenes(10, True), epochs=4)


@pytest.mark.parametrize(
    ("kind", "spans"), [(heads.TokenTagging(num_outputs=CLASSES), False), (heads.SpanAnswering(longest=9), True)]
)
@pytest.mark.parametrize("count", [12, 13])
def test_tokens_of_texts_of_any_length(kind: HeadKind, spans: bool, count: int) -> None:
    assert_the_same(kind, lambda: TaggedWords(count, spans), validated=True, learning_rate=0.1)


OPTIONS: dict[str, dict[str, Any]] = {
    "accumulation": {"accumulation_steps": 2},
    "moving average": {"ema_decay": 0.9},
    "bf16": {"precision": "bf16"},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_however_it_is_trained(options: dict[str, Any]) -> None:
    assert_the_same(SEGMENTERS["fcn"], lambda: Scenes(9, False), bits=True, **options)


def test_views_of_each_sample_bring_their_targets() -> None:
    assert_the_same(DETECTORS["anchor-free"], lambda: Scenes(9, True, flickers=True), epochs=5, augmented_views=2)


def test_cut_anywhere_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    """Four steps to an epoch: cut while rows are stored, and after it."""
    kind, options = DETECTORS["anchors"], {"checkpoint_every": 1}
    whole = fitted(kind, "always", Scenes(10, True), run=tmp_path / "whole", **options)
    for cut in (2, 6):
        folder = tmp_path / str(cut)
        with pytest.raises(Cut):
            fitted(kind, "always", Scenes(10, True), run=folder, callbacks=[CutAfter(cut)], **options)
        assert digests(fitted(kind, "always", Scenes(10, True), run=folder, **options)) == digests(whole)


def test_what_is_kept_is_found_by_heads_that_read_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NEURENIX_HOME", str(tmp_path / "home"))
    unet, coarse = SEGMENTERS["unet"], SEGMENTERS["fcn"]
    fitted(unet, "always", Scenes(6, False), run=tmp_path / "first")
    assert "had been through" not in capsys.readouterr().out
    fitted(coarse, "always", Scenes(6, False), run=tmp_path / "coarse")
    assert "had been through" not in capsys.readouterr().out
    again = fitted(unet, "always", Scenes(6, False), run=tmp_path / "again")
    assert "2 batches had been through the frozen layers before" in capsys.readouterr().out
    assert digests(again) == digests(fitted(unet, "never", Scenes(6, False)))


def test_images_of_several_sizes_run_them_in_every_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    """Batches of one image each; what the first one has no room for is not stored, and nothing is lost."""
    sizes = ((SIDE, SIDE), (SIDE, 2 * SIDE))
    tuners = [
        fitted(DETECTORS["anchors"], use, Scenes(8, True, sizes), batch_size=1, accumulation_steps=3)
        for use in ("always", "never")
    ]
    said = capsys.readouterr().out
    assert "not of one size" in said or "different shapes" in said
    assert gap(*tuners) < 1e-6


class Peeping(TaskHead):
    """Says that it needs the sizes of images and looks at their pixels."""

    task: ClassVar[str] = "segmentation"
    needs: ClassVar[tuple[str, ...] | None] = ("images",)

    def __init__(self, outputs: int = CLASSES) -> None:
        super().__init__()
        self.classify = nn.Conv2d(12, outputs, 1)

    @property
    def num_outputs(self) -> int:
        return self.classify.out_channels

    def forward(self, features: Tensor, inputs: Any) -> Tensor:
        images = inputs["images"] if isinstance(inputs, dict) else inputs
        logits = self.classify(features) + images.sum((1, 2, 3))[:, None, None, None]
        return nn.functional.interpolate(logits, images.shape[2:])

    def losses(self, features: Tensor, inputs: Any, targets: Tensor) -> dict[str, Tensor]:
        logits = self(features, inputs)
        return {"pixels": (logits.logsumexp(1) ** 2).mean() + nn.functional.cross_entropy(logits, targets.clamp(max=2))}

    def for_classes(self, num_outputs: int) -> Self:
        return type(self)(num_outputs)


def model_with(head: TaskHead) -> PretrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        trunk = seeded(Network).trunk.module.stages
        return PretrainedModel(trunk=trunk, pool=Pool("avg"), head=head, feature_size=12, stages=("trunk.0",))


def said_by(model: PretrainedModel, capsys: pytest.CaptureFixture[str], **options: Any) -> str:
    Finetuner(model, **{"strategy": "head", "frozen_prefix": "always", **options}).fit(
        Scenes(6, False), epochs=2, batch_size=3, run=False
    )
    return capsys.readouterr().out


def test_a_head_that_looks_at_more_than_it_says_is_found_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert "do not give what the whole gives" in said_by(model_with(Peeping()), capsys)


def test_a_head_that_says_nothing_gets_its_inputs(capsys: pytest.CaptureFixture[str]) -> None:
    class Open(Peeping):
        needs = None

    assert "may look at anything of its inputs" in said_by(model_with(Open()), capsys)


def test_layers_that_are_trained_in_part_are_not_split_below_such_a_head(capsys: pytest.CaptureFixture[str]) -> None:
    model = attach_head(seeded(Network), SEGMENTERS["fcn"])
    said = said_by(model, capsys, strategy="partial", freeze_layers=["stages.0"])
    assert "reads maps or tokens, and of the layers that give them some are trained" in said


# --- targets --------------------------------------------------------------------------------------------------------


def test_targets_come_in_other_batches_as_they_went_in() -> None:
    rows, places = TargetRows(6), [torch.tensor([0, 3]), torch.tensor([1, 2]), torch.tensor([4, 5])]
    for number, part in enumerate(places):
        boxes = torch.arange(2.0 * (number + 1) * 4).view(2, number + 1, 4) + 1
        rows.put(part, {"boxes": boxes, "labels": torch.full((2, number + 1), number)})
    found = rows.get(torch.tensor([5, 0]))
    assert found["labels"].tolist() == [[2, 2, 2], [0, -1, -1]]
    assert found["boxes"][1].tolist() == [[1, 2, 3, 4], [0] * 4, [0] * 4]
    assert rows.get(torch.tensor([0, 3]))["labels"].tolist() == [[0], [0]]


def test_targets_of_tokens_are_as_long_as_the_longest_text() -> None:
    rows = TargetRows(3, lengths=torch.tensor([4, 2, 3]))
    rows.put(torch.tensor([0, 1, 2]), torch.tensor([[1, 2, 3, 4], [5, 6, -1, -1], [7, -100, 8, -1]]))
    assert rows.get(torch.tensor([2, 1])).tolist() == [[7, -100, 8], [5, 6, -1]]


def test_masks_lie_in_bytes_as_long_as_they_fit(generator: torch.Generator) -> None:
    masks = torch.randint(0, 256, (4, 5, 6), generator=generator)
    rows = TargetRows(4)
    rows.put(torch.tensor([0, 1]), masks[:2])
    assert rows._tables[""]._rows.dtype == torch.uint8
    masks[3, 0, 0] = 70_000
    rows.put(torch.tensor([2, 3]), masks[2:])
    found = rows.get(torch.tensor([3, 0, 2, 1]))
    assert found.dtype == torch.int64 and torch.equal(found, masks[[3, 0, 2, 1]])


def test_no_targets_stay_none_and_numbers_stay_numbers() -> None:
    rows = TargetRows(2)
    assert rows.get(torch.tensor([0])) is None
    rows.put(torch.tensor([1, 0]), torch.tensor([0.5, 1.5]))
    assert rows.get(torch.tensor([0, 1])).tolist() == [1.5, 0.5]
