"""What kinds of heads share that find objects: a pyramid neck, torchvision's losses and its choice of boxes."""

from __future__ import annotations

import abc
import copy
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, ClassVar, Self, cast, final

import torch
from torch import Tensor, nn

from ...errors import ConfigurationError
from ...metrics import TaskKind
from ...models.vision._boxes import OneStageHead, full_precision, image_sizes, unpadded
from ...models.vision._dense import checked_classes
from ...packages import require
from ._backbone import Backbone
from ._expected_images import with_boxes
from ._kind import OWN, HeadKind
from ._map_reader import MapReader

Answers = dict[str, Tensor]
_COARSER = 2  # levels that a neck adds: P6 and P7 of the paper


class DetectionKind(HeadKind):
    """A kind whose models answer for each image with {"boxes": (k, 4), "scores": (k,), "labels": (k,)}, the best first.

    Boxes are x1 y1 x2 y2 in pixels of the input; predict gives those of the image as it came. Labels are class numbers
    0 to num_outputs - 1, those of the targets: there is no number for the background.
    """

    task: ClassVar[TaskKind | None] = "detection"
    loss: ClassVar[str] = OWN

    def preprocessing(self, preprocess: Any) -> Any:
        """Images are made as large as fits with their proportions kept, and boxes go with them."""
        return with_boxes(preprocess)


@final
class PyramidNeck(nn.Module):
    """Maps of one width: each joined with the enlarged coarser one, and two coarser ones added.

    Lin et al., Feature Pyramid Networks for Object Detection, CVPR 2017; P6 and P7 of RetinaNet. torchvision's layers.
    strides: of what it gives, the finest first.
    """

    def __init__(self, reader: MapReader, channels: int, *, coarser: bool) -> None:
        super().__init__()
        ops: Any = require("torchvision.ops.feature_pyramid_network", purpose="a head that finds objects")
        extra = ops.LastLevelP6P7(channels, channels) if coarser else None
        self.joined = ops.FeaturePyramidNetwork(list(reader.channels), channels, extra)
        added = [reader.strides[-1] * 2**level for level in range(1, _COARSER + 1)] if coarser else []
        self.strides = (*reader.strides, *added)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """[(n, c, h, w), the finest first] -> [(n, channels, h, w)]"""
        return list(self.joined(OrderedDict((str(level), part) for level, part in enumerate(maps))).values())


def neck_on(backbone: Backbone, channels: int, finest_stride: int, *, coarser: bool) -> tuple[MapReader, PyramidNeck]:
    """What reads a backbone's maps from `finest_stride` pixels on, and a neck on them."""
    reader = MapReader.of_all(backbone.pyramid(), finest_stride)
    return reader, PyramidNeck(reader, channels, coarser=coarser)


def check_sizes(channels: int, finest_stride: int) -> None:
    """Raise ConfigurationError for sizes that no neck can have."""
    if channels < 1:
        raise ConfigurationError(f"channels={channels}; give a number from 1, such as 256.")
    if finest_stride < 1:
        raise ConfigurationError(f"finest_stride={finest_stride}; it is a number of pixels, from 1.")


class DetectorHead(OneStageHead):
    """Reads maps, joins them in a pyramid, and answers for each anchor of each place of it.

    network: torchvision's detector, of which only methods are used, with its anchors and a head for `channels`.
    """

    def __init__(self, reader: MapReader, neck: PyramidNeck, network: Any) -> None:
        super().__init__(network)
        self.layers = reader.layers
        self.reader, self.neck = reader, neck

    @abc.abstractmethod
    def new_classifier(self, num_outputs: int) -> nn.Module:
        """The network's classifier for so many classes, new."""

    @abc.abstractmethod
    def compute_losses(
        self, targets: list[dict[str, Tensor]], answers: Answers, anchors: list[Tensor], counts: list[int]
    ) -> dict[str, Tensor]:
        """Torchvision's losses. anchors: (anchors, 4) for each image. counts: anchors of each level."""

    def forward(self, features: tuple[Tensor, ...], inputs: Any) -> list[dict[str, Tensor]]:
        """Boxes, scores and labels of each image, the best first."""
        with full_precision(features, next(self.parameters())) as outputs:
            answers, anchors, counts = self.run(outputs, inputs)
            by_level = {name: list(answer.split(counts, dim=1)) for name, answer in answers.items()}
            parts = [list(of_image.split(counts)) for of_image in anchors]
            found = self._network[0].postprocess_detections(by_level, parts, image_sizes(inputs))
            return cast("list[dict[str, Tensor]]", found)

    def losses(self, features: tuple[Tensor, ...], inputs: Any, targets: Any) -> dict[str, Tensor]:
        """Focal loss of the classes and a loss of the boxes, see the kind. targets: see unpadded."""
        wanted = unpadded(targets, 0, with_masks=False)
        with full_precision(features, next(self.parameters())) as outputs:
            return self.compute_losses(wanted, *self.run(outputs, inputs))

    def check_targets(self, targets: Any) -> None:
        """Boxes with an area, and their labels."""
        unpadded(targets, 0, with_masks=False)

    def for_classes(self, num_outputs: int) -> Self:
        """The same head with a new classifier's last layer, for classes that begin with 0."""
        checked_classes(num_outputs)
        head = copy.deepcopy(self)
        classifier = cast(Any, head.head).classification_head
        new: Any = self.new_classifier(num_outputs)
        classifier.cls_logits = new.cls_logits.to(classifier.cls_logits.weight)
        classifier.num_classes = num_outputs
        return head

    def run(self, outputs: Sequence[Tensor], inputs: Any) -> tuple[Answers, list[Tensor], list[int]]:
        """What the network answers, (n, anchors, …) each, the anchors (anchors, 4) of each image, those per level."""
        maps = self.neck(self.reader(outputs, inputs))
        generator = self._network[0].anchor_generator
        anchors = placed_anchors(generator, [(m.shape[2], m.shape[3]) for m in maps], self.neck.strides, maps[0])
        return self.head(maps), [torch.cat(anchors)] * len(maps[0]), [len(level) for level in anchors]


def placed_anchors(
    generator: Any, grids: Sequence[tuple[int, int]], strides: Sequence[float], like: Tensor
) -> list[Tensor]:
    """Anchors (h · w · kinds, 4) of each level, in pixels, row by row, around the middles of squares of the stride.

    torchvision's own call divides the image by the map, which tells no stride where it does not divide the image.
    generator: torchvision's, with the kinds of each level. grids: (h, w) of the maps. like: their device and type.
    """
    generator.set_cell_anchors(like.dtype, like.device)
    steps = [torch.tensor(stride, dtype=like.dtype, device=like.device) for stride in strides]
    levels = generator.grid_anchors(list(grids), [[step, step] for step in steps])
    return [level + step / 2 for level, step in zip(levels, steps, strict=True)]


@final
class Outline(nn.Module):
    """What torchvision's detectors ask of a backbone that they do not run."""

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels
