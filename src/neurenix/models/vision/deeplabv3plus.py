"""DeepLabV3+ of segmentation-models-pytorch: Chen et al., Encoder-Decoder with Atrous Separable Convolution, ECCV 2018.

The weights "imagenet" are an encoder's: the trunk is pretrained and the head, the decoder, is random, as the load
report says; it has to be trained. A folder written by the library's save_pretrained brings both. `model(inputs)` gives
logits, (n, classes, height, width), for images whose sides are multiples of 16.
"""

from __future__ import annotations

from functools import partial

from .._records import ARCHITECTURES, Architecture
from ._smp import ENCODERS, EXPECTED, LICENCE, build_smp, count_classes, encoder_weights

PAPER = (
    "Chen et al., Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation, ECCV 2018, "
    "arXiv:1802.02611"
)

for _encoder, (_stages, _roles, *_) in ENCODERS.items():
    _name = f"deeplabv3plus-{_encoder}"
    ARCHITECTURES.add(
        _name,
        Architecture(
            name=_name,
            domain="vision",
            tasks=("segmentation", "features"),
            build=partial(build_smp, kind="DeepLabV3Plus", encoder=_encoder),
            input=EXPECTED,
            stages=tuple(f"encoder.{stage}" for stage in _stages),
            head_name="",
            pooling="avg",
            paper=PAPER,
            licence=LICENCE,
            weights=encoder_weights(_encoder),
            outputs=1,
            count_outputs=count_classes,
            roles=_roles,
        ),
        *(("deeplabv3plus", "deeplabv3+") if _encoder == "resnet34" else ()),
    )
