"""One linear layer for each place of the last map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import nn

from ._backbone import Backbone
from ._kind import HEADS
from ._map_reader import MapReader
from ._segmentation import OnOneMap, SegmentationHead, SegmentationKind


@HEADS.register("linear_segmentation")
@final
@dataclass(frozen=True, kw_only=True)
class LinearSegmentation(SegmentationKind):
    """A 1x1 convolution on the last map: what the features themselves know of places. num_outputs: classes."""

    num_outputs: int

    def build(self, backbone: Backbone) -> nn.Module:
        """The head."""
        reader = MapReader.of_last(backbone.pyramid())
        return SegmentationHead(reader, OnOneMap(nn.Identity()), nn.Conv2d(reader.channels[0], self.num_outputs, 1))
