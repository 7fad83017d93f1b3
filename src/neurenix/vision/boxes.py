"""Boxes and the images that they lie in: sizes, scaling, padding. Boxes are x1, y1, x2, y2 in pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

Detections = dict[str, Tensor]


def letterbox_size(image: tuple[int, int], canvas: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of an image made as large as fits into a canvas, both (height, width); cut to whole pixels."""
    scale = min(canvas[0] / image[0], canvas[1] / image[1])
    return max(1, int(image[0] * scale)), max(1, int(image[1] * scale))


def shorter_side_size(image: tuple[int, int], shorter: int, longer: int) -> tuple[int, int]:
    """(height, width) of an image (height, width) whose shorter side becomes `shorter`, the longer at most `longer`.

    The result is cut to whole pixels, as torchvision's detectors have it.
    """
    scale = min(shorter / min(image), longer / max(image))
    return max(1, int(image[0] * scale)), max(1, int(image[1] * scale))


def scale_boxes(boxes: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Boxes (…, 4) of an image that was resized from `before` to `after`, (2,) height and width each."""
    ratio = (after.to(boxes) / before.to(boxes)).flip(-1)
    return boxes * torch.cat([ratio, ratio], dim=-1)


def boxes_in_original(boxes: Tensor, image_size: Tensor, original_size: Tensor) -> Tensor:
    """Boxes (k, 4) on what a detector reads, mapped to pixels of the original image and cut at its borders.

    image_size, original_size: (2,), height and width of the resized and of the original image, as in a batch.
    """
    mapped = scale_boxes(boxes, image_size, original_size)
    height, width = (float(side) for side in original_size)
    return torch.stack([mapped[:, 0::2].clamp(0, width), mapped[:, 1::2].clamp(0, height)], dim=2).flatten(1)


def detections_in_original(detections: Sequence[Detections], inputs: Mapping[str, Tensor]) -> list[Detections]:
    """What a detector found in a batch, with the boxes in pixels of the original images.

    detections: for each image a mapping with "boxes" (k, 4), and "masks" (k, h, w) in [0, 1] where there are some.
    inputs: the batch, with "image_sizes" and "original_sizes" (n, 2).
    """
    restored = []
    for found, image_size, original_size in zip(
        detections, inputs["image_sizes"], inputs["original_sizes"], strict=True
    ):
        answer = {**found, "boxes": boxes_in_original(found["boxes"], image_size, original_size)}
        if "masks" in found:
            answer["masks"] = masks_in_original(found["masks"], image_size, original_size)
        restored.append(answer)
    return restored


def masks_in_original(masks: Tensor, image_size: Tensor, original_size: Tensor) -> Tensor:
    """Masks (k, h, w) on what a detector reads, at the size of the original image, by bilinear interpolation."""
    height, width = (int(side) for side in original_size)
    if not len(masks):
        return masks.new_zeros(0, height, width)
    used = masks[None, :, : int(image_size[0]), : int(image_size[1])]
    return functional.interpolate(used, size=(height, width), mode="bilinear", align_corners=False)[0]


def pad_images(images: Sequence[Tensor], multiple: int, fill: float) -> Tensor:
    """Images or masks (c, h, w) of any sizes as (n, c, H, W): filled up at the right and at the bottom.

    H and W are the largest height and width, rounded up to a multiple.
    """
    height, width = (-(-max(image.shape[side] for image in images) // multiple) * multiple for side in (1, 2))
    return torch.stack(
        [functional.pad(image, (0, width - image.shape[2], 0, height - image.shape[1]), value=fill) for image in images]
    )


def pad_rows(rows: Sequence[Tensor], fill: float) -> Tensor:
    """Tensors (k, …) of different k as (n, largest k, …), filled up."""
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=fill)
