"""YOLOS in two sizes: Fang et al., You Only Look at One Sequence, NeurIPS 2021; transformers' networks.

`model(inputs)` gives for each image {"boxes": (k, 4) x1 y1 x2 y2, "scores": (k,), "labels": (k,)} in pixels of the
input, one for each of the 100 detection tokens. The published labels are COCO's numbers, 1 to 90; `for_classes` makes
classes that begin with 0.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self, cast, final

import torch
from torch import Tensor, nn

from ...errors import DamagedFileError
from ...nn import TaskHead
from ...packages import require
from ...storage import read_json
from ...vision import DetectionInput
from .._records import ARCHITECTURES, Architecture, BuildOptions, HubSource, Parts, StateDict, Weights
from .._sizes import Extent, read_sizes
from ._boxes import full_precision, image_sizes, unpadded
from ._dense import checked_classes, divisible_images, place_mask
from ._simota import corners

PAPER = "Fang et al., You Only Look at One Sequence, NeurIPS 2021, arXiv:2106.00666"
LICENCE = "apache-2.0"
CLASSES = 91
ROLES = {
    "stem": "embeddings.patch_embeddings.projection",
    "attention.query": "encoder.layer.*.attention.attention.query",
    "attention.key": "encoder.layer.*.attention.attention.key",
    "attention.value": "encoder.layer.*.attention.attention.value",
    "attention.output": "encoder.layer.*.attention.output.dense",
    "mlp.in": "encoder.layer.*.intermediate.dense",
    "mlp.out": "encoder.layer.*[0-9].output.dense",
    "mlp.join": "encoder.layer.*[0-9].output",
}


@dataclass(frozen=True, kw_only=True)
class YolosSizes:
    """The keys of config.json that define a YOLOS, but for image_size, with the smaller one's values."""

    hidden_size: int = 192
    num_hidden_layers: int = 12
    num_attention_heads: int = 3
    intermediate_size: int = 768
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    layer_norm_eps: float = 1e-12
    patch_size: int = 16
    qkv_bias: bool = True
    num_detection_tokens: int = 100
    use_mid_position_embeddings: bool = False

    def extent(self) -> Extent:
        """How large the encoder would be, but for its position embeddings."""
        layer = self.hidden_size * (4 * self.hidden_size + 2 * self.intermediate_size)
        return Extent(
            parameters=self.num_hidden_layers * layer,
            layers=self.num_hidden_layers,
            heads=(self.num_attention_heads,),
            width=self.hidden_size,
            vocabulary=0,
            activation=self.hidden_act,
        )


TINY = YolosSizes()
SMALL = YolosSizes(hidden_size=384, num_attention_heads=6, intermediate_size=1536, use_mid_position_embeddings=True)
# size -> sizes, (height, width) of the grid of positions in pixels, side of the images of the published evaluation
PUBLISHED: dict[str, tuple[YolosSizes, tuple[int, int], int]] = {
    "tiny": (TINY, (800, 1333), 512),
    "small": (SMALL, (512, 864), 800),
}
_MOST_PIXELS = 8192  # of a side of the grid of positions


def stages(sizes: YolosSizes) -> tuple[str, ...]:
    """Names of the trunk's parts."""
    between = ("encoder.interpolation",) if sizes.use_mid_position_embeddings else ()
    layers = (f"encoder.layer.{layer}" for layer in range(sizes.num_hidden_layers))
    return ("embeddings", *layers, *between, "layernorm")


@final
class YolosTrunk(nn.Module):
    """The library's vision transformer under the library's names."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.embeddings: nn.Module = network.embeddings
        self.encoder: nn.Module = _with_newer_names(network.encoder)
        self.layernorm: nn.Module = network.layernorm
        self.config: Any = network.config

    def forward(self, inputs: Any) -> Tensor:
        """Images (n, 3, h, w), or a mapping with "images" -> (n, 1 + patches + detection tokens, d)."""
        images = divisible_images(inputs, self.config.patch_size)
        height, width = images.shape[-2:]
        hidden = self.encoder(self.embeddings(images), height=height, width=width).last_hidden_state
        return cast(Tensor, self.layernorm(hidden))

    def feature_mask(self, inputs: Any) -> Tensor:
        """(n, tokens): 1 for patches that show the image, 0 for the class and the detection tokens."""
        images, patch = divisible_images(inputs, self.config.patch_size), self.config.patch_size
        mask = place_mask(inputs, patch)
        if mask is None:
            count = (images.shape[2] // patch) * (images.shape[3] // patch)
            mask = torch.ones(images.shape[0], count, dtype=torch.int64, device=images.device)
        return nn.functional.pad(mask, (1, self.config.num_detection_tokens))


def _with_newer_names(encoder: nn.Module) -> nn.Module:
    """The encoder with the positions between layers where transformers has them since 5.18: in their interpolation."""
    positions = encoder._parameters.get("mid_position_embeddings")
    if positions is not None:
        encoder.interpolation = _OwnPositions(encoder.interpolation, positions)
        del encoder.mid_position_embeddings
        encoder.__dict__["mid_position_embeddings"] = None  # its forward hands them over
    return encoder


@final
class _OwnPositions(nn.Module):
    """An older interpolation, which is handed its positions, with positions of its own."""

    def __init__(self, interpolation: Any, positions: nn.Parameter) -> None:
        super().__init__()
        self._interpolation = interpolation  # without parameters
        self.mid_position_embeddings = positions

    def forward(self, nothing: None, size: tuple[int, int]) -> Tensor:
        """Height and width in pixels -> (layers - 1, 1, tokens, d)."""
        positions: Tensor = self._interpolation(self.mid_position_embeddings, size)
        return positions


@final
class YolosHead(TaskHead):
    """A class, or none, and a box for each detection token.

    score_threshold: least chance of a class. The published evaluation takes every answer, and so it is 0.
    """

    task = "detection"
    options = ("score_threshold",)

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.class_labels_classifier: Any = network.class_labels_classifier
        self.bbox_predictor: Any = network.bbox_predictor
        self.config: Any = network.config
        self.score_threshold = 0.0

    @property
    def num_outputs(self) -> int:
        """Number of classes; the network has one more output, for no object."""
        return int(self.class_labels_classifier.layers[-1].out_features) - 1

    def forward(self, features: Tensor, inputs: Any) -> list[dict[str, Tensor]]:
        """What each image's detection tokens say, the best first."""
        logits, boxes = self.raw(features)
        scores, labels = logits.softmax(-1)[..., :-1].max(-1)
        pixels = corners(boxes) * _extents(inputs, boxes)
        answers = []
        for row in range(len(scores)):
            order = scores[row].argsort(descending=True, stable=True)
            order = order[scores[row][order] >= self.score_threshold]
            answers.append({"boxes": pixels[row][order], "scores": scores[row][order], "labels": labels[row][order]})
        return answers

    def raw(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, tokens, classes + 1), the last for no object, and boxes (n, tokens, 4) cx, cy, w, h in [0, 1]."""
        with full_precision([features], next(self.parameters())) as (whole,):
            tokens = whole[:, -self.config.num_detection_tokens :]
            return self.class_labels_classifier(tokens), self.bbox_predictor(tokens).sigmoid()

    def losses(self, features: Tensor, inputs: Any, targets: Any) -> dict[str, Tensor]:
        """The library's shares, weighted: cross-entropy "loss_ce", L1 "loss_bbox" and generalised IoU "loss_giou".

        Each object is answered for by one token, by the matching of least cost (paper sec. 3.1, as in DETR).
        targets: {"boxes": (n, k, 4) x1 y1 x2 y2 in pixels of the input, "labels": (n, k) padded by -1}.
        """
        require("scipy", purpose="YOLOS's matching of boxes")
        criterion = require("transformers.loss.loss_for_object_detection", purpose="YOLOS's losses")
        logits, boxes = self.raw(features)
        if not bool(boxes.isfinite().all()):
            return {"loss_bbox": boxes.sum()}  # not a number, which the training loop knows what to do with
        extents = _extents(inputs, boxes)
        labels = [
            {"class_labels": target["labels"], "boxes": _centred(target["boxes"].to(boxes) / extents[row])}
            for row, target in enumerate(unpadded(targets, 0, with_masks=False))
        ]
        shares = criterion.ForObjectDetectionLoss(logits, labels, logits.device, boxes, self.config)[1]
        weights = {
            "loss_ce": 1,
            "loss_bbox": self.config.bbox_loss_coefficient,
            "loss_giou": self.config.giou_loss_coefficient,
        }
        return {name: shares[name] * weight for name, weight in weights.items()}

    def for_classes(self, num_outputs: int) -> Self:
        """The same head with a new last layer of the classifier, for classes that begin with 0."""
        checked_classes(num_outputs)
        head = copy.deepcopy(self)
        head.config.num_labels = num_outputs
        last = head.class_labels_classifier.layers[-1]
        head.class_labels_classifier.layers[-1] = nn.Linear(
            last.in_features, num_outputs + 1, device=last.weight.device, dtype=last.weight.dtype
        )
        return head


def build_yolos(options: BuildOptions, *, published: YolosSizes, grid: tuple[int, int]) -> Parts:
    """Build the library's network with random weights, with attention by torch's fused kernels."""
    transformers = require("transformers", purpose="the architecture YOLOS")
    sizes = read_sizes(options.folder, published=published, model_type="yolos")
    configuration = transformers.YolosConfig(
        **asdict(sizes),
        image_size=_grid(options.folder, grid),
        num_labels=max(1, options.num_classes),
        attn_implementation="sdpa",
    )
    network = transformers.YolosForObjectDetection(configuration)
    return Parts(
        trunk=YolosTrunk(network.vit),
        head=YolosHead(network) if options.num_classes else None,
        feature_size=sizes.hidden_size,
        channels_last=True,
        prefix_tokens=1,
        stages=stages(sizes),
    )


def convert(state: StateDict) -> StateDict:
    """The hub's names to ours: `vit` is the trunk, the classifier and the boxes are the head."""
    return {_our_key(key): tensor for key, tensor in state.items()}


def count_classes(state: StateDict) -> int | None:
    """Classes of the classifier in a file, with names as ours; None where it has none."""
    last = state.get("head.class_labels_classifier.layers.2.weight")
    return None if last is None else last.shape[0] - 1


def _our_key(key: str) -> str:
    if key.startswith(("class_labels_classifier.", "bbox_predictor.")):
        return f"head.{key}"
    if key == "vit.encoder.mid_position_embeddings":
        return "trunk.encoder.interpolation.mid_position_embeddings"  # where the library keeps them now
    return f"trunk.{key.removeprefix('vit.')}" if key.startswith("vit.") else key


def _grid(folder: str | None, published: tuple[int, int]) -> tuple[int, int]:
    """(height, width) in pixels that the position embeddings cover, as config.json says."""
    path = Path(folder or "", "config.json")
    content = read_json(path) if folder is not None and path.is_file() else {}
    given: Any = content.get("image_size", list(published)) if isinstance(content, Mapping) else None
    match given:
        case [int(height), int(width)] if 0 < height <= _MOST_PIXELS and 0 < width <= _MOST_PIXELS:
            return height, width
    raise DamagedFileError(f"{path} says image_size = {given!r}, which are no height and width in pixels.")


def _extents(inputs: Any, like: Tensor) -> Tensor:
    """(n, 1, 4) width, height, width, height of the images in a batch, without what they were filled up with."""
    sizes = torch.tensor(image_sizes(inputs)).to(like)
    return sizes.flip(1).repeat(1, 2)[:, None]


def _centred(boxes: Tensor) -> Tensor:
    """(…, 4) x1, y1, x2, y2 -> cx, cy, w, h."""
    return torch.cat([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], dim=-1)


def _register(size: str, sizes: YolosSizes, grid: tuple[int, int], side: int) -> None:
    name = f"yolos-{size}"
    expected = DetectionInput(size=(side, side * 1333 // 800), multiple=16, antialias=True, files=("config.json",))
    weights = Weights(
        name="coco",
        source=HubSource(repository=f"hustvl/{name}"),
        licence=LICENCE,
        paper=PAPER,
        input=expected,
        labels="coco-91",
        convert=convert,
    )
    ARCHITECTURES.add(
        name,
        Architecture(
            name=name,
            domain="vision",
            tasks=("detection", "features"),
            build=partial(build_yolos, published=sizes, grid=grid),
            input=expected,
            stages=stages(sizes),
            head_name="",
            pooling="avg",
            paper=PAPER,
            licence=LICENCE,
            weights={"coco": weights},
            default_weights="coco",
            outputs=CLASSES,
            count_outputs=count_classes,
            roles=ROLES,
        ),
        f"hustvl/{name}",
    )


for _size, _published in PUBLISHED.items():
    _register(_size, *_published)
