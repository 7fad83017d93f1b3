"""A fully convolutional head: Long et al., Fully Convolutional Networks for Semantic Segmentation, CVPR 2015."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast, final

from torch import nn

from ...packages import require
from ._backbone import Backbone
from ._kind import HEADS
from ._map_reader import MapReader
from ._segmentation import OnOneMap, SegmentationHead, SegmentationKind


@HEADS.register("fcn")
@final
@dataclass(frozen=True, kw_only=True)
class FCN(SegmentationKind):
    """A 3x3 convolution to a quarter of the channels and a classifier on the last map, as torchvision's FCNHead.

    num_outputs: classes.
    """

    num_outputs: int

    def build(self, backbone: Backbone) -> nn.Module:
        """The head."""
        published: Any = require("torchvision.models.segmentation.fcn", purpose="the head 'fcn'")
        reader = MapReader.of_last(backbone.pyramid())
        *decoder, classifier = published.FCNHead(reader.channels[0], self.num_outputs)
        return SegmentationHead(reader, OnOneMap(nn.Sequential(*decoder)), cast(nn.Conv2d, classifier))
