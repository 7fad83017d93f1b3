"""DeepLabV3+ of segmentation-models-pytorch: Chen et al., Encoder-Decoder with Atrous Separable Convolution, ECCV 2018.

The weights "imagenet" are an encoder's: the trunk is pretrained and the head, the decoder, is random, as the load
report says; it has to be trained. A folder written by the library's save_pretrained brings both. `model(inputs)` gives
logits, (n, classes, height, width), for images whose sides are multiples of 16.
"""

from __future__ import annotations

from .._records import ARCHITECTURES
from ._smp import smp_architectures

PAPER = (
    "Chen et al., Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation, ECCV 2018, "
    "arXiv:1802.02611"
)

for _place, _architecture in enumerate(smp_architectures("DeepLabV3Plus", "deeplabv3plus", PAPER)):
    ARCHITECTURES.add(_architecture.name, _architecture, *(("deeplabv3plus", "deeplabv3+") if _place == 0 else ()))
