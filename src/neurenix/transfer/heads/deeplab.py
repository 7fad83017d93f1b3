"""An atrous pyramid: Chen et al., Rethinking Atrous Convolution for Semantic Image Segmentation, 2017 (DeepLabV3)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast, final

from torch import nn

from ...errors import ConfigurationError
from ...packages import require
from ._backbone import Backbone
from ._kind import HEADS
from ._map_reader import MapReader
from ._segmentation import BatchNormOfFew, OnOneMap, SegmentationHead, SegmentationKind

_REACHES = (96, 192, 288)  # pixels: rates 12, 24, 36 at stride 8, and 6, 12, 18 at stride 16 (section 4.1)


@HEADS.register("deeplab", "deeplabv3")
@final
@dataclass(frozen=True, kw_only=True)
class DeepLab(SegmentationKind):
    """Convolutions of several widths and the mean of the last map, joined, and a classifier; as torchvision's head.

    num_outputs: classes. rates: places between the taps of its convolutions; none given are those of the paper for the
    backbone's stride: [12, 24, 36] at stride 8, [3, 6, 9] at 32.
    """

    num_outputs: int
    rates: list[int] = field(default_factory=list)

    def check(self) -> None:
        """Rates are numbers of places."""
        super().check()
        if any(rate < 1 for rate in self.rates):
            raise ConfigurationError(f"rates={self.rates}; each is a number of places, from 1.")

    def build(self, backbone: Backbone) -> nn.Module:
        """The head."""
        published: Any = require("torchvision.models.segmentation.deeplabv3", purpose="the head 'deeplab'")
        reader = MapReader.of_last(backbone.pyramid())
        rates = self.rates or [max(1, round(reach / reader.strides[0])) for reach in _REACHES]
        *decoder, classifier = published.DeepLabHead(reader.channels[0], self.num_outputs, rates)
        pooled = decoder[0].convs[-1]
        pooled[2] = BatchNormOfFew(pooled[2].num_features)
        return SegmentationHead(reader, OnOneMap(nn.Sequential(*decoder)), cast(nn.Conv2d, classifier))
