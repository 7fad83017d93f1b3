"""Sizes of Wav2Vec 2.0: what config.json says, and how many frames come of how many samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from ...errors import DamagedFileError, WeightsMismatchError
from .._sizes import Extent, read_sizes

MODEL_TYPE = "wav2vec2"


@dataclass(frozen=True)
class FrameCount:
    """How many frames a stack of convolutions without padding makes; called with a batch's inputs, of each sample."""

    kernels: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def shortest(self) -> int:
        """Samples that the first frame reads."""
        samples = 1
        for kernel, stride in zip(reversed(self.kernels), reversed(self.strides), strict=True):
            samples = (samples - 1) * stride + kernel
        return samples

    def of(self, samples: Tensor) -> Tensor:
        """Numbers of samples -> numbers of frames, at least 1, in the same shape."""
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            samples = (samples - kernel).div(stride, rounding_mode="floor") + 1
        return samples.clamp(min=1)

    def __call__(self, inputs: Any) -> Tensor | None:
        """(n,) frames of each sample that are real; None where no mask says so."""
        mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
        return None if mask is None else self.of(mask.long().sum(1))


@dataclass(frozen=True, kw_only=True)
class Wav2Vec2Sizes:
    """The keys of config.json that define the network, with the base model's values.

    feat_extract_norm: "group" (of the first convolution) or "layer" (of each). do_stable_layer_norm: norms stand in
    front of attention and feed-forward part. The mask_… keys: see SpanMasking.
    """

    vocab_size: int = 32
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout: float = 0.1
    activation_dropout: float = 0.1
    attention_dropout: float = 0.1
    feat_proj_dropout: float = 0.1
    final_dropout: float = 0.1
    layerdrop: float = 0.1
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-5
    feat_extract_norm: str = "group"
    feat_extract_activation: str = "gelu"
    conv_dim: tuple[int, ...] = (512,) * 7
    conv_stride: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    conv_kernel: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_bias: bool = False
    num_conv_pos_embeddings: int = 128
    num_conv_pos_embedding_groups: int = 16
    do_stable_layer_norm: bool = False
    apply_spec_augment: bool = True
    mask_time_prob: float = 0.05
    mask_time_length: int = 10
    mask_time_min_masks: int = 2
    mask_feature_prob: float = 0.0
    mask_feature_length: int = 10
    mask_feature_min_masks: int = 0
    pad_token_id: int = 0
    add_adapter: bool = False
    adapter_attn_dim: int | None = None

    @property
    def frames(self) -> FrameCount:
        """How many frames the network gives."""
        return FrameCount(self.conv_kernel, self.conv_stride)

    def settings(self) -> dict[str, Any]:
        """As the library's configuration takes them."""
        return asdict(self)

    def extent(self) -> Extent:
        """How large the network would be."""
        layer = self.hidden_size * (4 * self.hidden_size + 2 * self.intermediate_size)
        channels = (1, *self.conv_dim)
        sounds = sum(a * b * kernel for a, b, kernel in zip(channels, channels[1:], self.conv_kernel, strict=False))
        places = self.hidden_size**2 * self.num_conv_pos_embeddings // max(self.num_conv_pos_embedding_groups, 1)
        around = self.hidden_size * (self.conv_dim[-1] + self.vocab_size)
        return Extent(
            parameters=self.num_hidden_layers * layer + sounds + places + around,
            layers=self.num_hidden_layers + len(self.conv_dim),
            heads=(self.num_attention_heads, self.num_conv_pos_embedding_groups),
            width=self.hidden_size,
            vocabulary=self.vocab_size,
            activation=self.hidden_act,
            tokens=(self.pad_token_id,),
        )


def wav2vec2_sizes(folder: str | None, published: Wav2Vec2Sizes) -> Wav2Vec2Sizes:
    """The sizes in `folder`/config.json, or the published ones where there is no such file.

    Raises DamagedFileError for values that no such network can have, WeightsMismatchError for networks of another kind
    and those with adapters.
    """
    from transformers.activations import ACT2FN

    sizes = read_sizes(folder, published=published, model_type=MODEL_TYPE)
    if sizes.add_adapter or sizes.adapter_attn_dim is not None:
        raise WeightsMismatchError(
            "this Wav2Vec 2.0 has adapters (add_adapter or adapter_attn_dim in its config.json), and those without "
            "can be loaded; take weights without them."
        )
    convolutions = (sizes.conv_dim, sizes.conv_kernel, sizes.conv_stride)
    shares = (sizes.mask_time_prob, sizes.mask_feature_prob)
    whole = {
        "conv_dim, conv_kernel and conv_stride, as many and positive": len({len(each) for each in convolutions}) == 1
        and all(min(each) > 0 for each in convolutions),
        "feat_extract_norm 'group' or 'layer'": sizes.feat_extract_norm in ("group", "layer"),
        "a feat_extract_activation that transformers has": sizes.feat_extract_activation in ACT2FN,
        "num_conv_pos_embeddings above 0": sizes.num_conv_pos_embeddings > 0,
        "shares in mask_time_prob and mask_feature_prob": max(shares) <= 1,
        "mask_time_length and mask_feature_length above 0": min(sizes.mask_time_length, sizes.mask_feature_length) > 0,
    }
    wrong = [needed for needed, holds in whole.items() if not holds]
    if wrong:
        raise DamagedFileError(f"{folder}/config.json is of no such network, which has {' and '.join(wrong)}.")
    return sizes
