"""A dataset of images with boxes, made ready for a detector, and its batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, final

import torch
from torch import Tensor
from torch.nn import functional

from ..data import collate
from ..data.preparation import Prepared, pair
from ..errors import LabelMismatchError
from ._detection_input import DetectionInput
from .boxes import pad_images, pad_rows, scale_boxes

IGNORED = -1  # the label of a row that is no box


class BoxPreprocess(Protocol):
    """What a dataset with boxes needs of its preprocessing."""

    @property
    def spec(self) -> DetectionInput:
        """What the weights were trained on."""
        ...

    def with_target(self, raw: Any, target: Any) -> tuple[dict[str, Tensor], Any]:
        """The tensors of one raw image, and its target changed as the image was."""
        ...


@final
class BoxedDataset(Prepared):
    """`dataset` of raw images with `preprocess` applied to each image and its boxes.

    A target is {"boxes": (k, 4) x1, y1, x2, y2 in pixels of the raw image, "labels": (k,) class numbers from 0,
    "masks": (k, h, w) 0 and 1, or none}, for an image without objects with k = 0. Other targets (class numbers of whole
    images) stay as they are.
    """

    def __init__(self, dataset: Any, preprocess: BoxPreprocess) -> None:
        super().__init__(dataset)
        self.preprocess = preprocess

    def __getitem__(self, index: int) -> tuple[dict[str, Tensor], Any]:
        raw, target = pair(self.dataset[index])
        if isinstance(target, Mapping):
            target = checked_target(target, self.sample_name(index))
        return self.preprocess.with_target(raw, target)

    def collate(self, samples: list[tuple[dict[str, Tensor], Any]]) -> tuple[dict[str, Tensor], Any]:
        """A batch: images filled up to the largest one, rows of targets to the most boxes in an image."""
        spec = self.preprocess.spec
        inputs = {
            "images": pad_images([sample["images"] for sample, _ in samples], spec.multiple, spec.fill),
            **{
                name: torch.stack([sample[name] for sample, _ in samples]) for name in ("image_sizes", "original_sizes")
            },
        }
        targets = [target for _, target in samples]
        if not isinstance(targets[0], Mapping):
            return inputs, collate([(0, target) for target in targets])[1]
        return inputs, collate_boxes(targets, spec.multiple)


def collate_boxes(targets: Sequence[Mapping[str, Tensor]], multiple: int) -> dict[str, Tensor]:
    """Targets of several images as {"boxes": (n, k, 4), "labels": (n, k), "masks": (n, k, H, W) where there are some}.

    Rows that are no boxes have the label -1 and zeros. multiple: as for the images, so that masks have their size.
    """
    padded = {
        "boxes": pad_rows([target["boxes"] for target in targets], 0),
        "labels": pad_rows([target["labels"] for target in targets], IGNORED),
    }
    if "masks" in targets[0]:
        most = padded["labels"].shape[1]
        rows = [functional.pad(mask, (0, 0, 0, 0, 0, most - len(mask))) for mask in (t["masks"] for t in targets)]
        padded["masks"] = pad_images(rows, multiple, 0)
    return padded


def scale_target(
    target: Mapping[str, Tensor], before: Tensor, after: Tensor, canvas: Sequence[int]
) -> dict[str, Tensor]:
    """The target of an image that was resized from `before` to `after` (height, width) and lies in a canvas."""
    scaled = {"boxes": scale_boxes(target["boxes"], before, after), "labels": target["labels"]}
    if "masks" in target:
        height, width = (int(side) for side in after)
        masks = target["masks"][None].float()
        masks = functional.interpolate(masks, size=(height, width))[0] if len(target["masks"]) else masks[0, :, :0, :0]
        room = (0, int(canvas[1]) - masks.shape[2], 0, int(canvas[0]) - masks.shape[1])
        scaled["masks"] = functional.pad(masks, room).to(torch.uint8)
    return scaled


def checked_target(target: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """A target as tensors of the right types; raises LabelMismatchError that names the sample."""
    if not {"boxes", "labels"} <= target.keys():
        given = ", ".join(map(str, target)) or "nothing"
        raise LabelMismatchError(f"the target of {name} has {given}; it needs boxes (k, 4) and labels (k,).")
    boxes = torch.as_tensor(target["boxes"], dtype=torch.float32)
    boxes = boxes.reshape(0, 4) if not boxes.numel() else boxes
    labels = torch.as_tensor(target["labels"]).to(torch.int64)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or labels.shape != boxes.shape[:1]:
        raise LabelMismatchError(
            f"{name} has boxes {tuple(boxes.shape)} and labels {tuple(labels.shape)}; (k, 4) and (k,) are needed."
        )
    if not bool(torch.isfinite(boxes).all()) or bool((boxes[:, 2:] <= boxes[:, :2]).any()):
        raise LabelMismatchError(
            f"{name} has a box without area or with NaN; boxes are x1, y1, x2, y2 in pixels with x1 < x2 and y1 < y2."
        )
    if bool((labels < 0).any()):
        raise LabelMismatchError(f"{name} has the label {int(labels.min())}; class numbers count from 0.")
    checked = {"boxes": boxes, "labels": labels}
    if target.get("masks") is not None:
        checked["masks"] = torch.as_tensor(target["masks"]).to(torch.uint8)
    return checked
