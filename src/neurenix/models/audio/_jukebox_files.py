"""Jukebox's checkpoints: their names, what of them the features need, and the sizes that they tell."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ...errors import WeightsMismatchError
from .._records import StateDict
from ..sources import read_state_dict
from ._jukebox_attention import TransformerSizes
from ._jukebox_conditioning import LabelSizes, UpperSizes
from ._jukebox_prior import PriorSizes

VQVAE_FILE = "vqvae.pth.tar"
_PROJECTION = re.compile(r"(?P<layer>(?:.*\.)?(?:c_attn|c_proj|c_fc|c_enc_kv|prime_state_proj))\.(?P<kind>[wb])")
_BLOCK = re.compile(r"prior\.transformer\._attn_mods\.(?P<number>\d+)\.")
_ANSWERS = ("prior.x_out.weight", "prime_x_out.weight")

Shapes = Mapping[str, tuple[int, ...]]


def convert_prior(state: StateDict) -> StateDict:
    """Projections from w (in, out) and b to weight (out, in) and bias, as torch's linear layers have them."""
    converted: StateDict = {}
    for name, tensor in state.items():
        found = _PROJECTION.fullmatch(name)
        if found is None:
            converted[name] = tensor
        elif found["kind"] == "w":
            converted[f"{found['layer']}.weight"] = tensor.T if tensor.ndim == 2 else tensor
        else:
            converted[f"{found['layer']}.bias"] = tensor
    return converted


def read_prior(path: Path) -> StateDict:
    """What features need of a published prior: the lower half of its blocks, without the layers that give answers.

    The VQ-VAE comes with it, under `vqvae.`, where its file vqvae.pth.tar lies in the same folder. Files that are not
    in the published form are given whole.
    """
    state, _ = read_state_dict(path)
    blocks = {int(found["number"]) for name in state if (found := _BLOCK.match(name))}
    if not any(name.endswith("c_attn.w") for name in state) or not blocks:
        return state
    kept = {name: tensor for name, tensor in state.items() if not _is_above(name, (max(blocks) + 1) // 2)}
    vqvae = path.parent / VQVAE_FILE
    if vqvae.is_file():
        kept |= {f"vqvae.{name}": tensor for name, tensor in read_state_dict(vqvae)[0].items()}
    return kept


def _is_above(name: str, blocks: int) -> bool:
    found = _BLOCK.match(name)
    return name in _ANSWERS or (found is not None and int(found["number"]) >= blocks)


def sizes_in(state: StateDict, published: PriorSizes) -> tuple[PriorSizes, int]:
    """The sizes that a prior's tensors have, and how many of its blocks are there.

    What tensors do not tell (heads, rows, order, durations) is as published.
    Raises WeightsMismatchError for tensors that are no such prior's.
    """
    shapes = {name.removeprefix("trunk."): tuple(tensor.shape) for name, tensor in state.items()}
    music, blocks = _transformer(shapes, "prior.", published.music)
    lyrics = published.lyrics
    if lyrics is not None:
        lyrics, depth = _transformer(shapes, "prime_prior.", lyrics)
        lyrics = replace(lyrics, depth=depth)
    upper = None if published.upper is None else _upper(shapes, published.upper)
    labels = _labels(shapes, published.labels)
    sizes = replace(published, music=music, lyrics=lyrics, upper=upper, labels=labels)
    if music.vocabulary < sizes.vqvae.codes or (not music.lyrics and music.vocabulary > sizes.vqvae.codes):
        raise WeightsMismatchError(
            f"the file's prior tells {music.vocabulary} symbols apart, and the VQ-VAE has {sizes.vqvae.codes} codes; "
            "load the file under the name of its own architecture."
        )
    return sizes, blocks


def _transformer(shapes: Shapes, prefix: str, published: TransformerSizes) -> tuple[TransformerSizes, int]:
    vocabulary, width = _shape(shapes, f"{prefix}x_emb.weight", 2)
    context, features = _shape(shapes, f"{prefix}pos_emb.pos_emb", 2)
    block = f"{prefix}transformer._attn_mods."
    _, state = _shape(shapes, f"{block}0.attn.c_proj.weight", 2)
    inner, _ = _shape(shapes, f"{block}0.mlp.c_fc.weight", 2)
    if state % published.heads or context % published.rows or context <= published.lyrics:
        raise WeightsMismatchError(
            f"the file has {state} features of attention and {context} places at {prefix}; this architecture needs a "
            f"multiple of its {published.heads} heads, and of its {published.rows} rows, above {published.lyrics}. "
            "Load the file under the name of its own architecture."
        )
    if features != width:
        raise WeightsMismatchError(
            f"the file's symbols at {prefix} have {width} features and its places {features}; it is no such prior's. "
            "Load the file under the name of its own architecture."
        )
    sizes = replace(published, vocabulary=vocabulary, context=context, width=width, state=state, inner=inner)
    return sizes, _count(shapes, block)


def _upper(shapes: Shapes, published: UpperSizes) -> UpperSizes:
    prefix = "conditioner_blocks.0.cond.model."
    width, *_ = _shape(shapes, f"{prefix}0.weight", 3)
    return replace(published, width=width, depth=_count(shapes, f"{prefix}1.0.model."))


def _labels(shapes: Shapes, published: LabelSizes) -> LabelSizes:
    genres, _ = _shape(shapes, "y_emb.bow_genre_emb.emb.weight", 2)
    artists, _ = _shape(shapes, "y_emb.artist_emb.emb.weight", 2)
    bins, *_ = shapes.get("y_emb.total_length_emb.emb.weight") or (published.time_bins,)
    return replace(published, genres=genres, artists=artists, time_bins=bins)


def _shape(shapes: Shapes, name: str, dimensions: int) -> tuple[int, ...]:
    shape = shapes.get(name)
    if shape is None or len(shape) != dimensions or 0 in shape:
        found = "does not have it" if shape is None else f"has it as {shape}"
        raise WeightsMismatchError(
            f"a Jukebox prior of this kind has a tensor {name} of {dimensions} dimensions, and the file {found}. Load "
            "the file under the name of its own architecture."
        )
    return shape


def _count(shapes: Shapes, prefix: str) -> int:
    """How many numbered parts there are below a name."""
    numbers = {name.removeprefix(prefix).split(".")[0] for name in shapes if name.startswith(prefix)}
    return len(numbers)
