"""YOLOX in six sizes: Ge et al., YOLOX: Exceeding YOLO Series in 2021, arXiv:2107.08430. A network of our own.

`model(inputs)` gives for each image {"boxes": (k, 4) x1 y1 x2 y2, "scores": (k,), "labels": (k,)} in pixels of the
input; labels count COCO's 80 classes from 0. `model.head.raw(model.features(inputs))` gives every place's answer.
"""

from __future__ import annotations

from functools import partial

from ...vision import DetectionInput
from .._records import ARCHITECTURES, Architecture, BuildOptions, Parts, StateDict, UrlSource, Weights
from ._csp_network import YoloxSizes, YoloxTrunk
from ._yolox_head import YoloxHead

PAPER = "Ge et al., YOLOX: Exceeding YOLO Series in 2021, arXiv:2107.08430"
LICENCE = "apache-2.0"
CLASSES = 80
RELEASE = "https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0"
STAGES = (
    *(f"backbone.backbone.{stage}" for stage in ("stem", "dark2", "dark3", "dark4", "dark5")),
    *(f"backbone.{part}" for part in ("lateral_conv0", "C3_p4", "reduce_conv1", "C3_p3")),
    *(f"backbone.{part}" for part in ("bu_conv2", "C3_n3", "bu_conv1", "C3_n4")),
)
ROLES = {
    "stem": "backbone.backbone.stem.conv.conv",
    "stages": "backbone.backbone.dark?",
    "convolution": "backbone.backbone.dark?.*.conv",
}

# size -> multipliers of depth and width, side of the images it was trained on
PUBLISHED: dict[str, tuple[YoloxSizes, int]] = {
    "nano": (YoloxSizes(depth=0.33, width=0.25, depthwise=True), 416),
    "tiny": (YoloxSizes(depth=0.33, width=0.375), 416),
    "s": (YoloxSizes(depth=0.33, width=0.5), 640),
    "m": (YoloxSizes(depth=0.67, width=0.75), 640),
    "l": (YoloxSizes(depth=1.0, width=1.0), 640),
    "x": (YoloxSizes(depth=1.33, width=1.25), 640),
}


def build_yolox(options: BuildOptions, *, sizes: YoloxSizes) -> Parts:
    """Build the network with random weights."""
    return Parts(
        trunk=YoloxTrunk(sizes),
        head=YoloxHead(sizes, options.num_classes) if options.num_classes else None,
        feature_size=sizes.maps[-1],
    )


def count_classes(state: StateDict) -> int | None:
    """Classes of the head in a file, with names as ours; None where it has none."""
    last = state.get("head.cls_preds.0.weight")
    return None if last is None else last.shape[0]


def _register(size: str, sizes: YoloxSizes, side: int) -> None:
    name, expected = f"yolox-{size}", DetectionInput.letterbox(side)
    weights = Weights(
        name="coco",
        # no hash is published, so that of the first download is pinned
        source=UrlSource(url=f"{RELEASE}/yolox_{size}.pth", sha256=None),
        licence=LICENCE,
        paper=PAPER,
        input=expected,
        labels="coco-80",
    )
    ARCHITECTURES.add(
        name,
        Architecture(
            name=name,
            domain="vision",
            tasks=("detection", "features"),
            build=partial(build_yolox, sizes=sizes),
            input=expected,
            stages=STAGES,
            head_name="head",
            pooling="avg",
            paper=PAPER,
            licence=LICENCE,
            weights={"coco": weights},
            default_weights="coco",
            outputs=CLASSES,
            count_outputs=count_classes,
            roles=ROLES,
        ),
        *(("yolox", "yolo") if size == "s" else ()),
    )


for _size, (_sizes, _side) in PUBLISHED.items():
    _register(_size, _sizes, _side)
