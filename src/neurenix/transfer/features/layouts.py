"""Where the channels are in a layer's output, and which of its tokens are no places."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from ...models._pretrained_model import PretrainedModel

_CHANNELS_FIRST = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.GroupNorm,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
)


@dataclass(frozen=True)
class Layout:
    """channels_last: channels are the last dimension, not the second. prefix_tokens: leading tokens that are
    no places (a class token), which pooling leaves out.
    """

    channels_last: bool
    prefix_tokens: int


@dataclass(frozen=True)
class Reference:
    """What the whole trunk is known to give: the module that gives it, its prefix tokens, and NHWC or not."""

    module: str | None
    prefix_tokens: int
    channels_last: bool


def reference_of(model: nn.Module) -> Reference:
    """The trunk of a PretrainedModel; of a timm model what it declares (`num_prefix_tokens`, `output_fmt`)."""
    if isinstance(model, PretrainedModel):
        return Reference("trunk", model.pool.prefix_tokens, model.pool.channels_last)
    channels_last = str(getattr(model, "output_fmt", "")).upper().endswith("NHWC")
    prefix_tokens = getattr(model, "num_prefix_tokens", None)
    if isinstance(prefix_tokens, int) and isinstance(getattr(model, "norm", None), nn.Module):
        return Reference("norm", prefix_tokens, channels_last)
    return Reference(None, 0, channels_last)


def detect(module: nn.Module, output: Tensor, reference: Reference, trunk_output: Tensor | None) -> Layout:
    """The layout of one layer's output.

    Convolutions and batch norms put channels second, linear layers and layer norms last. Of the others a 3-d
    output is a sequence (n, tokens, channels), and a 4-d one is what the trunk gives: NCHW unless the model
    declares NHWC. Prefix tokens are in a sequence that is as long as the trunk's own.
    """
    if isinstance(module, _CHANNELS_FIRST):
        return Layout(False, 0)
    if output.ndim != 3:
        same_rank = trunk_output is None or trunk_output.ndim == output.ndim
        return Layout(_norms_last(module) or (reference.channels_last and same_rank), 0)
    as_long = trunk_output is not None and trunk_output.ndim == 3 and trunk_output.shape[1] == output.shape[1]
    return Layout(True, reference.prefix_tokens if as_long else 0)


def _norms_last(module: nn.Module) -> bool:
    # timm and torchvision both derive a LayerNorm2d, for NCHW, from LayerNorm.
    is_layer_norm = isinstance(module, nn.LayerNorm) and not type(module).__name__.endswith("2d")
    return is_layer_norm or isinstance(module, nn.Linear)
