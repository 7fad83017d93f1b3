"""Vision Transformer with 16-pixel patches: Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021."""

from __future__ import annotations

import re
from functools import partial

from ...vision import ImageInput
from .._records import ARCHITECTURES, Architecture, StateDict, Weights
from ._timm import build_timm, timm_weights
from ._torchvision import resized, torchvision_weights

PAPER = "Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021, arXiv:2010.11929"
HOW_TO_TRAIN = "Steiner et al., How to train your ViT?, TMLR 2022, arXiv:2106.10270"

EXPECTED = ImageInput(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), crop=0.9)
DEPTHS = {"tiny": 12, "small": 12, "base": 12, "large": 24}
TAGS = {size: "augreg_in21k_ft_in1k" for size in DEPTHS} | {"base": "augreg2_in21k_ft_in1k"}
REVISIONS = {"base": "063c6c38a5d8510b2e57df480445e94b231dad2c"}
TORCHVISION_FILES = {"base": ("vit_b_16-c867db91.pth", 256), "large": ("vit_l_16-852ce7e3.pth", 242)}


def convert_torchvision(state: StateDict) -> StateDict:
    """Rename torchvision's keys (`encoder.layers.encoder_layer_3.ln_1`) to timm's (`blocks.3.norm1`)."""
    return {_timm_key(key): tensor for key, tensor in state.items()}


# In this order; files from before torchvision 0.12 say linear_1 and linear_2 for mlp.0 and mlp.3.
_RENAMES = (
    (r"^class_token$", "cls_token"),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^heads\.head\.", "head."),
    (r"^encoder\.ln\.", "norm."),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"^(blocks\.\d+)\.ln_(\d)\.", r"\1.norm\2."),
    (r"^(blocks\.\d+)\.self_attention\.in_proj_", r"\1.attn.qkv."),
    (r"^(blocks\.\d+)\.self_attention\.out_proj\.", r"\1.attn.proj."),
    (r"^(blocks\.\d+)\.mlp\.(?:0|linear_1)\.", r"\1.mlp.fc1."),
    (r"^(blocks\.\d+)\.mlp\.(?:3|linear_2)\.", r"\1.mlp.fc2."),
)


def _timm_key(key: str) -> str:
    for pattern, name in _RENAMES:
        key = re.sub(pattern, name, key)
    return key


def _weights(size: str) -> dict[str, Weights]:
    name = f"vit_{size}_patch16_224"
    records = [
        timm_weights(
            "imagenet",
            f"{name}.{TAGS[size]}",
            input=EXPECTED,
            paper=HOW_TO_TRAIN,
            revision=REVISIONS.get(size, "main"),
        ),
        timm_weights("imagenet-21k", f"{name}.augreg_in21k", input=EXPECTED, paper=HOW_TO_TRAIN, labels=None),
    ]
    if size in TORCHVISION_FILES:
        file, resize_size = TORCHVISION_FILES[size]
        records.append(
            torchvision_weights(
                "imagenet-torchvision",
                file,
                input=resized(224, resize_size),
                paper=PAPER,
                convert=convert_torchvision,
            )
        )
    return {record.name: record for record in records}


for _size, _depth in DEPTHS.items():
    _name = f"vit-{_size}-patch16-224"
    ARCHITECTURES.add(
        _name,
        Architecture(
            name=_name,
            domain="vision",
            tasks=("classification", "features"),
            build=partial(
                build_timm,
                name=f"vit_{_size}_patch16_224",
                resizable=False,
                channels_last=True,
                prefix_tokens=1,
            ),
            input=EXPECTED,
            stages=(
                "patch_embed",
                "cls_token",
                "pos_embed",
                *(f"blocks.{block}" for block in range(_depth)),
                "norm",
            ),
            head_name="head",
            pooling="cls",
            paper=PAPER,
            licence="apache-2.0",
            weights=_weights(_size),
            roles={
                "stem": "patch_embed.proj",
                "attention.qkv": "blocks.*.attn.qkv",
                "attention.output": "blocks.*.attn.proj",
                "mlp": "blocks.*.mlp",
                "mlp.in": "blocks.*.mlp.fc1",
                "mlp.out": "blocks.*.mlp.fc2",
            },
        ),
        f"vit-{_size}",
        f"vit-{_size}-16",
    )
