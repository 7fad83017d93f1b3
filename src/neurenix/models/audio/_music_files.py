"""The Music Transformer's files: Magenta's TensorFlow checkpoint and the layout of MusicTransformer-Pytorch."""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor

from ...errors import ConfigurationError, WeightsMismatchError
from .._records import StateDict
from ..sources import read_state_dict, read_tensor_bundle
from ._music_network import MusicTransformerSizes

_NORM = r"layer_prepostprocess/layer_norm/layer_norm"
_LAYER = r"transformer/body/decoder/layer_(\d+)"
_TORCH_LAYER = r"transformer\.encoder\.layers\.(\d+)"
_RENAMES = (
    (r"transformer/symbol_modality_\d+_\d+/shared/weights_0", r"trunk.embedding.weight"),
    (rf"{_LAYER}/self_attention/multihead_attention/(\w+)/", r"trunk.layers.\1.self_attention.\2."),
    (rf"{_LAYER}/self_attention/{_NORM}_", r"trunk.layers.\1.self_attention_norm."),
    (rf"{_LAYER}/ffn/(conv\d)/", r"trunk.layers.\1.ffn.\2."),
    (rf"{_LAYER}/ffn/{_NORM}_", r"trunk.layers.\1.ffn_norm."),
    (rf"transformer/body/decoder/{_NORM}_", r"trunk.norm."),
    (r"embedding\.weight", r"trunk.embedding.weight"),
    (r"positional_encoding\.pe", r"trunk.positional_encoding.pe"),
    (rf"{_TORCH_LAYER}\.self_attn\.out_proj\.", r"trunk.layers.\1.self_attention.output_transform."),
    (rf"{_TORCH_LAYER}\.self_attn\.Er", r"trunk.layers.\1.self_attention.relative"),
    (rf"{_TORCH_LAYER}\.self_attn\.([qkv])\.", r"trunk.layers.\1.self_attention.\2."),
    (rf"{_TORCH_LAYER}\.linear(\d)\.", r"trunk.layers.\1.ffn.conv\2."),
    (rf"{_TORCH_LAYER}\.norm1\.", r"trunk.layers.\1.self_attention_norm."),
    (rf"{_TORCH_LAYER}\.norm2\.", r"trunk.layers.\1.ffn_norm."),
    (r"transformer\.encoder\.norm\.", r"trunk.norm."),
    (r"Wout\.", r"head."),
)
_OURS = {"kernel": "weight", "scale": "weight"}
_MOMENTS = re.compile(r"/(Adam|Adafactor|Momentum|ExponentialMovingAverage)\w*(/|$)")
_LAYER_NUMBER = re.compile(r"trunk\.layers\.(\d+)\.")


def read(path: Path) -> StateDict:
    """The tensors of a TensorFlow checkpoint (its .index file) or of a torch file, under the file's names.

    Of the former, the network's own variables: no step count, no optimizer's moments. Of the latter, the projections
    that are stored as one are cut into the three that they are.

    Raises WeightsMismatchError for the melody-conditioned model, which has an encoder too.
    """
    if path.suffix != ".index":
        return _cut(read_state_dict(path)[0])
    state = read_tensor_bundle(path, keep=lambda name: name.startswith("transformer/") and not _MOMENTS.search(name))
    more = [name for name in state if "/body/encoder/" in name or "/encdec_attention/" in name]
    if more:
        raise WeightsMismatchError(
            f"{path} is of a model with an encoder ({more[0]}), such as the melody-conditioned one; this network is "
            "the decoder alone, of the unconditional model."
        )
    return state


def convert(state: StateDict) -> StateDict:
    """Either file's names to ours; TensorFlow's kernels, which are (in, out), are transposed."""
    converted = {}
    for key, tensor in state.items():
        name = _our_name(key)
        converted[name] = tensor.T.contiguous() if key.endswith("/kernel") and tensor.ndim == 2 else tensor
    return converted


def sizes_in(state: StateDict, published: MusicTransformerSizes) -> MusicTransformerSizes:
    """The sizes of the network that tensors under our names are of; the published number of heads and length where
    these do not tell.

    Raises WeightsMismatchError where they are of no such network, before anything is built of such sizes.
    """
    embedding = state.get("trunk.embedding.weight")
    numbers = {int(match[1]) for match in map(_LAYER_NUMBER.match, state) if match}
    first = state.get("trunk.layers.0.ffn.conv1.weight")
    if embedding is None or embedding.ndim != 2 or first is None or first.ndim != 2:
        raise WeightsMismatchError(
            "the file has no tensors embedding.weight and layers.0.ffn.conv1.weight under any known names, "
            f"and is of another network; it begins with {', '.join(sorted(state)[:3]) or 'nothing'}."
        )
    table = state.get("trunk.positional_encoding.pe")
    relative = state.get("trunk.layers.0.self_attention.relative")
    width = embedding.shape[1]
    head_width = relative.shape[-1] if relative is not None and relative.ndim == 2 else width // published.heads
    lengths = [tensor.shape[0] for tensor in (relative, table) if tensor is not None and tensor.ndim > 1]
    _check_layers(state, len(numbers), width, first.shape[0])
    try:
        return MusicTransformerSizes(
            vocabulary_size=embedding.shape[0],
            width=width,
            layers=len(numbers),
            heads=width // max(head_width, 1),
            hidden=first.shape[0],
            max_length=lengths[0] if lengths else published.max_length,
            attention="absolute" if relative is None else "relative",
            layout="tensor2tensor" if table is None else "torch",
        )
    except ConfigurationError as error:
        raise WeightsMismatchError(f"the file's tensors are of no such network: {error}") from error


def count_events(state: StateDict) -> int | None:
    """How many events the head in a file tells apart: those of its embedding, with which it shares its weights."""
    found = state.get("head.weight", state.get("trunk.embedding.weight"))
    return None if found is None else found.shape[0]


def _our_name(key: str) -> str:
    for pattern, name in _RENAMES:
        found, count = re.subn(f"^{pattern}", name, key)
        if count:
            stem, _, last = found.rpartition(".")
            return f"{stem}.{_OURS.get(last, last)}"
    return key


def _check_layers(state: StateDict, layers: int, width: int, hidden: int) -> None:
    for layer in range(layers):
        wanted = {"self_attention.q": (width, width), "ffn.conv1": (hidden, width)}
        for part, shape in wanted.items():
            found = state.get(f"trunk.layers.{layer}.{part}.weight")
            if found is None or tuple(found.shape) != shape:
                shown = "is not there" if found is None else f"is {list(found.shape)}"
                raise WeightsMismatchError(
                    f"the file's layers.{layer}.{part}.weight {shown}, and beside the file's other tensors it has to "
                    f"be {list(shape)}; it is no checkpoint of this network."
                )


def _cut(state: StateDict) -> StateDict:
    """in_proj of (3 width, …) as q, k and v of (width, …)."""
    cut: dict[str, Tensor] = {}
    for key, tensor in state.items():
        stem, found, kind = key.partition("in_proj_")
        if not found:
            cut[key] = tensor
            continue
        if not tensor.ndim or tensor.shape[0] % 3:
            raise WeightsMismatchError(f"the file's {key} is {list(tensor.shape)}; it has to be three projections.")
        cut |= {f"{stem}{part}.{kind}": rows for part, rows in zip("qkv", tensor.chunk(3), strict=True)}
    return cut
