"""What the families built by timm share: the trunk, the head, and the records of timm's own weights."""

from __future__ import annotations

from torch import nn

from ...errors import ConfigurationError
from ...packages import require
from ...vision import ImageInput
from .._records import BuildOptions, HubSource, Parts, Weights

PATCH = 16  # side of a patch of every vision transformer here


def build_timm(
    options: BuildOptions,
    *,
    name: str,
    resizable: bool = True,
    channels_last: bool = False,
    prefix_tokens: int = 0,
) -> Parts:
    """Build timm's `name` with random weights: its own module names, unpooled features.

    resizable: whether any image size fits as it is; without it the size is given to timm, which sizes the
        position embeddings by it.
    """
    timm = require("timm", purpose=f"the architecture {name}")
    if not resizable and options.image_size and any(size % PATCH for size in options.image_size):
        raise ConfigurationError(
            f"{name} cuts images into {PATCH} x {PATCH} patches, so height and width must be multiples of "
            f"{PATCH}; input_shape asks for {options.image_size[0]} x {options.image_size[1]}."
        )
    sizes = {} if resizable or options.image_size is None else {"img_size": options.image_size}
    network = timm.create_model(
        name, pretrained=False, num_classes=options.num_classes, in_chans=options.channels, **sizes
    )
    head: nn.Module | None = network.get_classifier() if options.num_classes else None
    network.reset_classifier(0, "")
    return Parts(
        trunk=network,
        head=head,
        feature_size=network.num_features,
        channels_last=channels_last,
        prefix_tokens=prefix_tokens,
    )


def timm_weights(
    name: str,
    repository: str,
    *,
    input: ImageInput,
    paper: str,
    licence: str = "apache-2.0",
    labels: str | None = "imagenet-1k",
    revision: str = "main",
) -> Weights:
    """The record of weights that timm publishes on the hub; the file's keys are the network's own."""
    return Weights(
        name=name,
        source=HubSource(repository=f"timm/{repository}", revision=revision),
        licence=licence,
        paper=paper,
        input=input,
        labels=labels,
    )
