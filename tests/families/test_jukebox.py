"""Jukebox against its equations, written here another way: plain loops over names, taps and places, in numpy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neurenix.data import ArrayDataset
from neurenix.errors import (
    ConfigurationError,
    DamagedFileError,
    InputMismatchError,
    LicenceError,
    WeightsMismatchError,
)
from neurenix.models import ARCHITECTURES, BuildOptions, PathSource, PretrainedModel, Weights
from neurenix.models.audio._jukebox_attention import AttentionLayout, Pattern, TransformerSizes, attend, pattern_of
from neurenix.models.audio._jukebox_conditioning import LabelSizes, UpperSizes
from neurenix.models.audio._jukebox_files import convert_prior
from neurenix.models.audio._jukebox_prior import JukeboxPrior, PriorSizes
from neurenix.models.audio._jukebox_vqvae import (
    JukeboxVQVAE,
    VQVAESizes,
    codebook_loss,
    commitment_loss,
    straight_through,
)
from neurenix.models.audio.jukebox import FILES, PRIORS
from neurenix.models.sources import obtain
from neurenix.transfer import AdapterTuner, Finetuner, LoraTuner, load_pretrained_model

Arrays = dict[str, np.ndarray]
SMALL = VQVAESizes(halvings=(2, 1, 1), widths=(6, 4, 4), depths=(3, 2, 2), codes=7, code_width=5)
HOPS = (8, 32, 128)


def randomised(module: nn.Module) -> Any:
    """Every tensor drawn anew, so that no zero, one or coincidence of the start hides a mistake."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.1)
    return module.eval()


def arrays(module: nn.Module) -> Arrays:
    return {name: tensor.double().numpy() for name, tensor in module.state_dict().items()}


def near(found: Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found.detach().double().numpy(), expected, rtol=2e-4, atol=2e-5)


def clips(count: int = 2, samples: int = 256) -> Tensor:
    return torch.randn(count, samples, generator=torch.Generator().manual_seed(1)) * 0.3


# --- the VQ-VAE ---


def vqvae_names() -> Iterator[str]:
    """The published list: 3 encoders and 3 decoders of 1 to 3 blocks, 3 codebooks."""
    halvings, depths = (3, 2, 2), (8, 4, 4)
    both = ("weight", "bias")
    for level in range(3):
        for block in range(level + 1):
            encoder, decoder = (f"{part}.{level}.level_blocks.{block}.model" for part in ("encoders", "decoders"))
            for step in range(halvings[block]):
                yield from (f"{encoder}.{step}.0.{kind}" for kind in both)
                yield from (f"{decoder}.{step + 1}.1.{kind}" for kind in both)
                for place in range(depths[level]):
                    for layer in (1, 3):
                        yield from (f"{encoder}.{step}.1.model.{place}.model.{layer}.{kind}" for kind in both)
                        yield from (f"{decoder}.{step + 1}.0.model.{place}.model.{layer}.{kind}" for kind in both)
            yield from (f"{encoder}.{halvings[block]}.{kind}" for kind in both)
            yield from (f"{decoder}.0.{kind}" for kind in both)
        yield from (f"decoders.{level}.out.{kind}" for kind in both)
        yield f"bottleneck.level_blocks.{level}.k"


def test_vqvae_is_the_published_one() -> None:
    with torch.device("meta"):
        trunk = JukeboxVQVAE()
    names = list(vqvae_names())
    assert sorted(trunk.state_dict()) == sorted(names) and len(names) == 669
    assert sum(parameter.numel() for parameter in trunk.parameters()) == 1_485_763
    assert {name: tuple(buffer.shape) for name, buffer in trunk.named_buffers()} == {
        f"bottleneck.level_blocks.{level}.k": (2048, 64) for level in range(3)
    }


def convolved(hidden: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int, pad: int, dilation: int):
    """hidden: (c, t), weight: (out, c, taps)"""
    taps = weight.shape[2]
    padded = np.pad(hidden, ((0, 0), (pad, pad)))
    steps = (padded.shape[1] - dilation * (taps - 1) - 1) // stride + 1
    result = np.zeros((len(weight), steps))
    for step in range(steps):
        for tap in range(taps):
            result[:, step] += weight[:, :, tap] @ padded[:, step * stride + tap * dilation]
    return result + bias[:, None]


def spread(hidden: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The transposed convolution of four taps, stride 2, one step cut off at both ends. weight: (c, out, taps)"""
    result = np.zeros((weight.shape[1], 2 * hidden.shape[1] + 2))
    for step in range(hidden.shape[1]):
        for tap in range(4):
            result[:, 2 * step + tap] += weight[:, :, tap].T @ hidden[:, step]
    return result[:, 1:-1] + bias[:, None]


def residuals(state: Arrays, name: str, hidden: np.ndarray, dilations: list[int], scale: float = 1.0) -> np.ndarray:
    for place, dilation in enumerate(dilations):
        layer = f"{name}.model.{place}.model"
        inner = convolved(np.maximum(hidden, 0), *pair(state, f"{layer}.1"), 1, dilation, dilation)
        hidden = hidden + scale * convolved(np.maximum(inner, 0), *pair(state, f"{layer}.3"), 1, 0, 1)
    return hidden


def pair(state: Arrays, name: str) -> tuple[np.ndarray, np.ndarray]:
    return state[f"{name}.weight"], state[f"{name}.bias"]


def encoded(state: Arrays, waveform: np.ndarray, level: int) -> np.ndarray:
    hidden = waveform[None]
    dilations = [3**place for place in range(SMALL.depths[level])]
    for block in range(level + 1):
        name = f"encoders.{level}.level_blocks.{block}.model"
        for step in range(SMALL.halvings[block]):
            hidden = convolved(hidden, *pair(state, f"{name}.{step}.0"), 2, 1, 1)
            hidden = residuals(state, f"{name}.{step}.1", hidden, dilations)
        hidden = convolved(hidden, *pair(state, f"{name}.{SMALL.halvings[block]}"), 1, 1, 1)
    return hidden.T


def decoded(state: Arrays, codes: np.ndarray, level: int) -> np.ndarray:
    hidden = np.stack([state[f"bottleneck.level_blocks.{level}.k"][code] for code in codes]).T
    dilations = [3**place for place in reversed(range(SMALL.depths[level]))]
    for block in range(level, -1, -1):
        name = f"decoders.{level}.level_blocks.{block}.model"
        hidden = convolved(hidden, *pair(state, f"{name}.0"), 1, 1, 1)
        for step in range(1, SMALL.halvings[block] + 1):
            hidden = residuals(state, f"{name}.{step}.0", hidden, dilations)
            hidden = spread(hidden, *pair(state, f"{name}.{step}.1"))
    return convolved(hidden, *pair(state, f"decoders.{level}.out"), 1, 1, 1)[0]


@pytest.mark.parametrize("level", [0, 1, 2])
def test_vqvae_follows_the_paper(level: int) -> None:
    trunk = randomised(JukeboxVQVAE(level, SMALL))
    state, waveform = arrays(trunk), clips(1, 64)
    latents = encoded(state, waveform[0].double().numpy(), level)
    near(trunk(waveform)[0], latents)
    book = state[f"bottleneck.level_blocks.{level}.k"]
    nearest = np.array([min(range(SMALL.codes), key=lambda code: ((book[code] - h) ** 2).sum()) for h in latents])
    codes = trunk.encode(waveform)
    assert codes.tolist() == [nearest.tolist()]
    near(trunk.decode(codes)[0], decoded(state, nearest, level))


def test_losses_by_hand() -> None:
    latents = torch.tensor([[1.0, 2.0], [0.0, 0.0]], requires_grad=True)
    entries = torch.tensor([[0.0, 2.0], [3.0, 4.0]], requires_grad=True)
    assert commitment_loss(latents, entries).item() == codebook_loss(latents, entries).item() == (1 + 25) / 2
    commitment, codebook = (
        torch.autograd.grad(loss(latents, entries), (latents, entries), allow_unused=True)
        for loss in (commitment_loss, codebook_loss)
    )
    assert commitment[1] is None and codebook[0] is None
    assert commitment[0].tolist() == [[1, 0], [-3, -4]] and codebook[1].tolist() == [[-1, 0], [3, 4]]
    through = straight_through(latents, entries)
    assert torch.equal(through, entries)
    assert torch.autograd.grad(through.sum(), latents)[0].tolist() == [[1, 1], [1, 1]]


@torch.inference_mode()
def test_frames_and_their_mask() -> None:
    for level, hop in enumerate(HOPS):
        trunk = JukeboxVQVAE(level)
        mask = torch.ones(2, 300, dtype=torch.int64)
        mask[1, 130:] = 0
        inputs = {"waveform": clips(2, 300), "attention_mask": mask}
        frames = trunk.feature_mask(inputs)
        assert frames.sum(1).tolist() == [math.ceil(300 / hop), math.ceil(130 / hop)]
        assert trunk(inputs).shape == (2, frames.shape[1], 64)
        assert trunk.decode(trunk.encode(inputs)).shape == (2, frames.shape[1] * hop)
    assert trunk.feature_mask(clips()) is None


@pytest.mark.parametrize(
    "wrong",
    [torch.zeros(2, 1, 64), torch.zeros(2, 64, dtype=torch.int64), {"input_ids": torch.zeros(2, 64)}, "a.wav"],
)
def test_what_is_no_waveform(wrong: Any) -> None:
    with pytest.raises(InputMismatchError, match="waveform"):
        JukeboxVQVAE(2, SMALL)(wrong)


def test_what_is_no_code() -> None:
    trunk = JukeboxVQVAE(2, SMALL)
    with pytest.raises(InputMismatchError, match="between 0 and 6"):
        trunk.decode(torch.tensor([[7]]))
    with pytest.raises(InputMismatchError, match="whole numbers"):
        trunk.decode(torch.tensor([[0.5]]))
    with pytest.raises(ConfigurationError, match="level=3"):
        trunk.encode(clips(), 3)


# --- attention ---

LETTERS = {
    "a": Pattern.ALL,
    "r": Pattern.ROW,
    "c": Pattern.COLUMN,
    "p": Pattern.PREVIOUS_ROW,
    "l": Pattern.LYRICS,
    "f": Pattern.PREFIX,
}
ORDERS = {
    2: "rcp" * 24,
    10: "rcp" * 3 + "rcprcprcpl" * 7,
    12: "rcprcprcprcprcp"
    + "f"
    + "cprcprcprcprcpr"
    + "f"
    + "prcprcprcprcprc"
    + "a"
    + "rcprcprcprcprcp"
    + "f"
    + "cprcprcp",
}


@pytest.mark.parametrize("order", ORDERS)
def test_which_block_sees_what(order: int) -> None:
    expected = [LETTERS[letter] for letter in ORDERS[order]]
    assert len(expected) == {2: 72, 10: 79, 12: 72}[order]
    assert [pattern_of(order, block) for block in range(len(expected))] == expected


def test_an_unknown_order() -> None:
    with pytest.raises(ConfigurationError, match="2, 10 and 12"):
        pattern_of(3, 0)


def seen_by(pattern: Pattern, place: int, row: int, prefix: int, words: int) -> list[int]:
    before = range(place + 1)
    return {
        Pattern.ALL: lambda: list(before),
        Pattern.ROW: lambda: [other for other in before if other // row == place // row],
        Pattern.COLUMN: lambda: [other for other in before if other % row == place % row],
        Pattern.PREVIOUS_ROW: lambda: [other for other in before if other // row == place // row - 1],
        Pattern.PREFIX: lambda: [other for other in before if other < prefix],
        Pattern.LYRICS: lambda: list(range(words)),
    }[pattern]()


def attended(query: np.ndarray, key: np.ndarray, value: np.ndarray, seen: list[int]) -> np.ndarray:
    """One place of one head: query (d,), key and value (t, d)."""
    if not seen:
        return np.zeros(value.shape[1])
    scores = np.array([query @ key[other] / math.sqrt(len(query)) for other in seen])
    shares = np.exp(scores - scores.max())
    return (shares / shares.sum()) @ value[seen]


@pytest.mark.parametrize("pattern", Pattern)
def test_attention_place_by_place(pattern: Pattern) -> None:
    layout = AttentionLayout(row=4, prefix=6)
    query, key, value = torch.randn(3, 2, 3, 20, 5, generator=torch.Generator().manual_seed(2))
    found = attend(pattern, query, key, value, layout)
    for sample, head, place in np.ndindex(2, 3, 20):
        seen = seen_by(pattern, place, 4, 6, 20)
        one = (tensor[sample, head].double().numpy() for tensor in (query, key, value))
        near(found[sample, head, place], attended(*[next(one)[place], next(one), next(one)], seen))


# --- the priors ---

TINY_LABELS = LabelSizes(genres=5, artists=7, time_bins=16, shortest=17.84, longest=600.0)


def music(order: int, depth: int, *, context: int = 40, vocabulary: int = 2048, lyrics: int = 0) -> TransformerSizes:
    return TransformerSizes(
        vocabulary=vocabulary,
        context=context,
        width=8,
        depth=depth,
        heads=2,
        state=4,
        inner=12,
        order=order,
        rows=10,
        lyrics=lyrics,
    )


TINY = {
    "top": PriorSizes(level=2, music=music(2, 5), labels=TINY_LABELS),
    "lyrics in front": PriorSizes(
        level=2, music=music(12, 48, context=50, vocabulary=2048 + 9, lyrics=11), labels=TINY_LABELS, tied=True
    ),
    "lyrics encoded": PriorSizes(
        level=2, music=music(10, 20), labels=TINY_LABELS, lyrics=replace(music(2, 3, vocabulary=9), rows=8)
    ),
    "level 0": PriorSizes(
        level=0, music=music(2, 4), labels=TINY_LABELS, upper=UpperSizes(doublings=2, width=6, depth=9), tied=True
    ),
    "level 1": PriorSizes(
        level=1,
        music=music(2, 3),
        labels=TINY_LABELS,
        upper=UpperSizes(doublings=2, width=6, depth=9, scaled=True),
        tied=True,
    ),
}


def normed(state: Arrays, name: str, hidden: np.ndarray) -> np.ndarray:
    middle = hidden - hidden.mean(-1, keepdims=True)
    spread_of = np.sqrt((middle**2).mean(-1, keepdims=True) + 1e-5)
    return middle / spread_of * state[f"{name}.weight"] + state[f"{name}.bias"]


def projected(state: Arrays, name: str, hidden: np.ndarray) -> np.ndarray:
    return hidden @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def block_by_block(
    state: Arrays, name: str, sizes: TransformerSizes, hidden: np.ndarray, lyrics: np.ndarray | None = None
) -> np.ndarray:
    """(t, d) -> (t, d), through all of a transformer's blocks."""
    prefix = (sizes.lyrics // sizes.rows + 1) * sizes.rows
    each = sizes.state // sizes.heads
    for block, letter in enumerate(ORDERS[sizes.order][: sizes.depth]):
        layer = f"{name}.transformer._attn_mods.{block}"
        parts = projected(state, f"{layer}.attn.c_attn", normed(state, f"{layer}.ln_0", hidden))
        if letter == "l":
            assert lyrics is not None
            parts = [parts, *np.split(projected(state, f"{layer}.attn.c_enc_kv", lyrics), 2, 1)]
        else:
            parts = np.split(parts, 3, 1)
        result = np.zeros((len(hidden), sizes.state))
        for place in range(len(hidden)):
            seen = seen_by(LETTERS[letter], place, sizes.context // sizes.rows, prefix, len(parts[1]))
            for head in range(sizes.heads):
                own = slice(head * each, (head + 1) * each)
                result[place, own] = attended(parts[0][place, own], parts[1][:, own], parts[2][:, own], seen)
        hidden = hidden + projected(state, f"{layer}.attn.c_proj", result)
        inner = projected(state, f"{layer}.mlp.c_fc", normed(state, f"{layer}.ln_1", hidden))
        hidden = hidden + projected(state, f"{layer}.mlp.c_proj", inner / (1 + np.exp(-1.702 * inner)))
    return hidden


def time_signal(state: Arrays, sizes: PriorSizes, total: int, offset: int, frames: int) -> np.ndarray:
    rate, bins, window = 44_100, sizes.labels.time_bins, sizes.frames * 128
    shortest, longest = sizes.labels.shortest * rate, sizes.labels.longest * rate
    end = min(1.0, (offset + window) / total)
    rows = []
    for frame in range(frames):
        share = frame / sizes.frames
        at = {
            "total_length": (total - shortest) / (longest - shortest),
            "absolute_pos": (offset + window * share) / longest,
            "relative_pos": offset / total + (end - offset / total) * share,
        }
        rows.append(sum(state[f"y_emb.{name}_emb.emb.weight"][int(bins * place)] for name, place in at.items()))
    return np.stack(rows)


def upper_signal(state: Arrays, sizes: PriorSizes, codes: np.ndarray) -> np.ndarray:
    assert sizes.upper is not None
    name = "conditioner_blocks.0"
    hidden = convolved(state[f"{name}.x_emb.weight"][codes].T, *pair(state, f"{name}.cond.model.0"), 1, 1, 1)
    dilations = [3 ** (place % 8) for place in range(sizes.upper.depth)]
    scale = 1 / math.sqrt(sizes.upper.depth) if sizes.upper.scaled else 1.0
    for step in (1, 2):
        hidden = residuals(state, f"{name}.cond.model.{step}.0", hidden, dilations, scale)
        hidden = spread(hidden, *pair(state, f"{name}.cond.model.{step}.1"))
    return normed(state, f"{name}.ln", hidden.T)


def answered(state: Arrays, sizes: PriorSizes, inputs: dict[str, Tensor], sample: int) -> np.ndarray:
    """Logits (frames, vocabulary) of one clip."""
    given = {name: tensor[sample].numpy() for name, tensor in inputs.items()}
    codes, frames = given["codes"], len(given["codes"])
    start = state["y_emb.artist_emb.emb.weight"][given["artist"]].copy()
    for word in given["genre"]:
        start += state["y_emb.bow_genre_emb.emb.weight"][word] if word >= 0 else 0
    if sizes.upper is None:
        added = time_signal(state, sizes, int(given["total_length"]), int(given["offset"]), frames)
    else:
        added = upper_signal(state, sizes, given["upper_codes"])[:frames]
    front, lyrics, symbols = sizes.music.lyrics, None, codes
    if front:
        symbols = np.concatenate([np.zeros(front - len(given["lyrics"]), int), given["lyrics"], codes + 9])
        added = np.concatenate([np.zeros((front, added.shape[1])), added])
    if sizes.lyrics is not None:
        words = np.concatenate([np.zeros(sizes.lyrics.context - len(given["lyrics"]), int), given["lyrics"]])
        read = np.stack([state["prime_prior.start_token"][0], *state["prime_prior.x_emb.weight"][words[:-1]]])
        lyrics = block_by_block(state, "prime_prior", sizes.lyrics, read + state["prime_prior.pos_emb.pos_emb"])
        lyrics = normed(state, "prime_state_ln", projected(state, "prime_state_proj", lyrics))
    embedded = np.stack([start, *state["prior.x_emb.weight"][symbols[:-1]]])
    hidden = embedded + state["prior.pos_emb.pos_emb"][: len(symbols)] + added
    hidden = block_by_block(state, "prior", sizes.music, hidden, lyrics)
    if sizes.tied:
        return ((hidden + added) @ state["prior.x_emb.weight"].T)[front:]
    return hidden[front:] @ state["prior.x_out.weight"].T


def told(sizes: PriorSizes, frames: int) -> dict[str, Tensor]:
    """Codes with all the labels that a prior can read."""
    generator = torch.Generator().manual_seed(3)
    inputs = {
        "codes": torch.randint(0, 2048, (2, frames), generator=generator),
        "artist": torch.tensor([6, 0]),
        "genre": torch.tensor([[2, 4, -1], [0, -1, -1]]),
        "total_length": torch.tensor([44_100 * 18, 44_100 * 200]),
        "offset": torch.tensor([44_100 * 17 + 41_000, 44_100 * 55]),  # the first clip reaches beyond its song's end
    }
    if sizes.lyrics or sizes.music.lyrics:
        inputs["lyrics"] = torch.randint(1, 9, (2, 8), generator=generator)
    if sizes.upper:
        inputs["upper_codes"] = torch.randint(0, 2048, (2, math.ceil(frames / 4)), generator=generator)
    return inputs


@pytest.mark.parametrize("kind", TINY)
@torch.inference_mode()
def test_prior_follows_the_paper(kind: str) -> None:
    """All blocks and all conditioning; 27 codes, so that the last row is not full."""
    sizes = TINY[kind]
    network = randomised(JukeboxPrior(sizes, sizes.music.depth, answers=True))
    inputs, state = told(sizes, 27), arrays(network)
    for sample in range(2):
        near(network.logits(inputs)[sample], answered(state, sizes, inputs, sample))


@pytest.mark.parametrize("kind", TINY)
@torch.inference_mode()
def test_features_have_seen_only_what_came_before(kind: str) -> None:
    sizes = TINY[kind]
    network = randomised(JukeboxPrior(sizes, sizes.music.depth // 2))
    inputs = told(sizes, 27)
    features = network(inputs)
    assert features.shape == (2, 27, 8)
    changed = {**inputs, "codes": inputs["codes"].clone()}
    changed["codes"][:, 13] += 1
    changed["codes"] %= 2048
    again = network(changed)
    assert torch.allclose(again[:, :14], features[:, :14], atol=1e-6)
    assert not torch.allclose(again[:, 14], features[:, 14], atol=1e-6)


@torch.inference_mode()
def test_what_is_not_told_is_unknown() -> None:
    sizes = TINY["lyrics in front"]
    network = randomised(JukeboxPrior(sizes, 3))
    codes = told(sizes, 20)["codes"]
    unknown = {"artist": torch.zeros(2, dtype=torch.int64), "genre": torch.zeros(2, 1, dtype=torch.int64)}
    song = {"total_length": torch.full((2,), 786_744), "offset": torch.zeros(2, dtype=torch.int64)}
    silent = {"lyrics": torch.zeros(2, 11, dtype=torch.int64)}
    assert torch.equal(network(codes), network({"codes": codes, **unknown, **song, **silent}))


@torch.inference_mode()
def test_a_waveform_becomes_codes() -> None:
    for kind, level in (("top", 2), ("level 0", 0)):
        network = randomised(JukeboxPrior(TINY[kind], 2, with_vqvae=True))
        mask = torch.ones(2, 320)
        mask[1, 100:] = 0
        waveform = clips(2, 320)
        inputs = {"waveform": waveform, "attention_mask": mask}
        filled = torch.nn.functional.pad(waveform, (0, -320 % (128 if level == 2 else 32)))
        codes = {"codes": network.vqvae.encode(filled, level)}
        if level == 0:
            codes["upper_codes"] = network.vqvae.encode(filled, 1)
        assert torch.equal(network(inputs), network(codes))
        assert network.feature_mask(inputs).sum(1).tolist() == ([3, 1] if level == 2 else [40, 16])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"artist": torch.tensor([7, 0])}, "artist lies between 0 and 6"),
        ({"genre": torch.tensor([2, 0])}, r"genre has to be \(2, -1\)"),
        ({"total_length": torch.tensor([1000, 44_100 * 30])}, "total_length lies between 786744"),
        ({"codes": torch.tensor([[2048]])}, "codes lie between 0 and 2047"),
        ({"codes": torch.zeros(2, 41, dtype=torch.int64)}, r"1 to 40 \(0.1 s\); cut it into pieces"),
    ],
)
def test_wrong_inputs_of_a_prior(change: dict[str, Tensor], message: str) -> None:
    sizes = TINY["top"]
    with pytest.raises(InputMismatchError, match=message):
        JukeboxPrior(sizes, 1)({**told(sizes, 20), **change})


def test_other_wrong_inputs_of_a_prior() -> None:
    with pytest.raises(InputMismatchError, match=r"without the VQ-VAE.*vqvae\.pth\.tar"):
        JukeboxPrior(TINY["top"], 1)({"waveform": clips()})
    with pytest.raises(InputMismatchError, match="upper_codes are whole numbers"):
        JukeboxPrior(TINY["level 0"], 1)(torch.zeros(1, 8, dtype=torch.int64))
    with pytest.raises(InputMismatchError, match="has to reach as far"):
        JukeboxPrior(TINY["level 0"], 1)({**told(TINY["level 0"], 20), "upper_codes": torch.zeros(2, 4).long()})
    with pytest.raises(InputMismatchError, match="lyrics lie between 0 and 8"):
        JukeboxPrior(TINY["lyrics in front"], 1)({**told(TINY["lyrics in front"], 20), "lyrics": torch.tensor([[9]])})


# --- the published sizes and files ---


def prior_names(blocks: int) -> set[str]:
    """The published list of 1b_lyrics for so many blocks."""
    names = {"prior.x_emb.weight", "prior.pos_emb.pos_emb", "prior.x_out.weight"}
    names |= {f"y_emb.{name}_emb.emb.weight" for name in ("bow_genre", "artist", "total_length")}
    names |= {f"y_emb.{name}_pos_emb.emb.weight" for name in ("absolute", "relative")}
    for block in range(blocks):
        for layer in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
            names |= {f"prior.transformer._attn_mods.{block}.{layer}.{kind}" for kind in "wb"}
        names |= {f"prior.transformer._attn_mods.{block}.ln_{n}.{kind}" for n in (0, 1) for kind in ("weight", "bias")}
    return names


# parameters of the whole network, and what the paper and the files' sizes say (bytes, 2 or 4 to a parameter)
COUNTS = {
    "jukebox-5b": 5_060_452_800,  # "5 billion"; 10.3 GB in half precision
    "jukebox-5b-lyrics": 5_640_506_800,  # 11.5 GB in half precision
    "jukebox-1b-lyrics": 942_643_200,  # "1 billion"; 3.8 GB
    "jukebox-upsampler-level-0": 981_298_176,  # "1 billion"
    "jukebox-upsampler-level-1": 981_298_176,
}


@pytest.mark.parametrize("name", PRIORS)
def test_published_priors(name: str) -> None:
    sizes = PRIORS[name]
    with torch.device("meta"):
        whole = JukeboxPrior(sizes, sizes.music.depth, answers=True)
        parts = ARCHITECTURES[name].build(BuildOptions(num_classes=0))
    assert sum(parameter.numel() for parameter in whole.parameters()) == COUNTS[name]
    assert len(parts.trunk.prior.transformer._attn_mods) == sizes.music.depth // 2
    assert parts.stages == ARCHITECTURES[name].stages and parts.feature_size == sizes.music.width
    if name == "jukebox-1b-lyrics":
        published = {key: torch.empty(1, 1) for key in prior_names(72)} | {"prior.x_out.weight": torch.empty(1, 1)}
        assert convert_prior(published).keys() - {"prior.x_out.weight"} == whole.state_dict().keys()


def published_form(network: JukeboxPrior) -> dict[str, Tensor]:
    """A prior's tensors as the authors' file has them: projections (in, out), and the tied answers once more."""
    state = {}
    for name, tensor in network.state_dict().items():
        layer, kind = name.rsplit(".", 1)
        if layer.rsplit(".", 1)[-1] in ("c_attn", "c_proj", "c_fc", "c_enc_kv", "prime_state_proj"):
            state[f"{layer}.{kind[0]}"] = tensor.T.contiguous() if kind == "weight" else tensor
        else:
            state[name] = tensor
    if network.sizes.tied:
        state["prior.x_out.weight"] = state["prior.x_emb.weight"]
    return state


def write(path: Path, state: dict[str, Tensor]) -> Path:
    """In the wrapping of the authors' files, and in torch's form of 2020."""
    wrapped = {
        "model": {f"module.{name}": tensor for name, tensor in state.items()},
        "opt": {"state": {}, "param_groups": [{"lr": 3e-4, "params": [0]}]},
        "step": 1234,
        "hps": {"name": "small", "levels": 3, "downs_t": (3, 2, 2), "restore_prior": ""},
    }
    torch.save(wrapped, path, _use_new_zipfile_serialization=False)
    return path


def little(name: str) -> PriorSizes:
    """A published prior's sizes with few features and blocks, as a file can have them; rows and order stay."""
    sizes = PRIORS[name]
    narrow = {"width": 16, "state": 8, "inner": 16}
    return replace(
        sizes,
        music=replace(sizes.music, **narrow, depth=4),
        labels=replace(sizes.labels, genres=5, artists=7, time_bins=16),
        lyrics=sizes.lyrics and replace(sizes.lyrics, **narrow, depth=2),
        upper=sizes.upper and replace(sizes.upper, width=6, depth=9),
    )


@pytest.mark.parametrize("name", PRIORS)
@torch.inference_mode()
def test_published_files_load(name: str, tmp_path: Path) -> None:
    sizes = little(name)
    whole, vqvae = randomised(JukeboxPrior(sizes, 4, answers=True)), randomised(JukeboxVQVAE())
    if name == "jukebox-1b-lyrics":
        assert published_form(whole).keys() == prior_names(4)
    path = write(tmp_path / Path(FILES[name]).name, published_form(whole))
    alone = load_pretrained_model(name, weights=path, device="cpu")
    write(tmp_path / "vqvae.pth.tar", vqvae.state_dict())
    model = load_pretrained_model(name, weights=path, device="cpu")
    for loaded in (alone, model):
        assert {fate.fate for fate in loaded.load_report.tensors} == {"matched"}
        assert loaded.stages[-1] == "prior.transformer._attn_mods.1"
        assert "vqvae" not in loaded.stages or loaded is model
    half = JukeboxPrior(sizes, 2)
    half.load_state_dict({key: whole.state_dict()[key] for key in half.state_dict()})
    inputs = told(sizes, 20) | {"total_length": torch.tensor([44_100 * 61, 44_100 * 200])}
    assert torch.equal(model.features(inputs), half(inputs))
    mask = torch.ones(2, 20)
    mask[1, 5:] = 0
    pooled = model.embed({**inputs, "attention_mask": mask})
    assert torch.allclose(pooled[1], half(inputs)[1, :5].mean(0), atol=1e-5)
    assert torch.equal(model.trunk.vqvae.encode(clips(), 1), vqvae.encode(clips(), 1))
    alone.trunk.vqvae = vqvae
    assert torch.equal(alone(clips()), model(clips()))
    assert model(clips()).shape == (2, model.feature_size) == (2, 16)


@torch.inference_mode()
def test_a_published_vqvae_loads(tmp_path: Path) -> None:
    expected = randomised(JukeboxVQVAE())
    path = write(tmp_path / "vqvae.pth.tar", expected.state_dict())
    for level, name in enumerate(("jukebox-vqvae-level-0", "jukebox-vqvae-level-1", "Jukebox VQVAE")):
        model = load_pretrained_model(name, weights=path, device="cpu")
        assert {fate.fate for fate in model.load_report.tensors} == {"matched"}
        assert torch.equal(model.features(clips()), expected.latents(clips(), level))
        assert model(clips()).shape == (2, 64)
        assert torch.equal(model.trunk.encode(clips()), expected.encode(clips(), level))


def test_the_licence_has_to_be_accepted() -> None:
    for name in ("jukebox-vqvae", *PRIORS):
        record = ARCHITECTURES[name].weights["openai"]
        assert record.licence == "OpenAI Noncommercial Use License" and not record.commercial_use
        assert record.source.url.startswith("https://openaipublic.azureedge.net/jukebox/models/")
        with pytest.raises(LicenceError, match="accept_licence=True"):
            load_pretrained_model(name, device="cpu")


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    whole = JukeboxPrior(little("jukebox-1b-lyrics"), 2, answers=True)
    state = published_form(whole)
    name = "jukebox-1b-lyrics"

    def load(changed: dict[str, Tensor]) -> PretrainedModel:
        return load_pretrained_model(name, weights=write(tmp_path / "a.pth.tar", changed), device="cpu")

    swapped = {key.replace("x_emb", "y_emb"): tensor for key, tensor in state.items()}
    with pytest.raises(WeightsMismatchError, match=r"prior\.x_emb\.weight of 2 dimensions.*does not have it"):
        load(swapped)
    with pytest.raises(WeightsMismatchError, match="rows"):
        load(state | {"prior.pos_emb.pos_emb": torch.zeros(6529, 16)})
    with pytest.raises(WeightsMismatchError, match="symbols apart"):
        load(state | {"prior.x_emb.weight": torch.zeros(100, 16)})
    with pytest.raises(WeightsMismatchError, match="17 features and its places 16"):
        load(state | {"prior.x_emb.weight": torch.zeros(2127, 17)})
    with pytest.raises(WeightsMismatchError, match="own architecture"):
        load(JukeboxVQVAE().state_dict())
    path = write(tmp_path / "b.pth.tar", state)
    record = Weights(name="b", source=PathSource(str(path)), licence="", paper="", input=None, sha256="00")
    with pytest.raises(DamagedFileError, match="expected 00"):
        obtain(record)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DamagedFileError, match="not a whole torch file"):
        load_pretrained_model(name, weights=path, device="cpu")


# --- transfer ---


def tones() -> ArrayDataset:
    """Sixteen clips of two kinds: low and high tones."""
    time = torch.arange(256) / 44_100
    pitch = torch.tensor([[400.0 + 20 * place, 6000.0 + 100 * place] for place in range(8)]).flatten()
    return ArrayDataset(torch.sin(2 * math.pi * pitch[:, None] * time), np.array([0, 1] * 8))


def without_weights() -> PretrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return load_pretrained_model("jukebox-vqvae", weights=None, device="cpu")


UNREAD = ["encoders.0", "encoders.1", "bottleneck", "decoders.*"]


def test_fine_tuning_the_vqvae(tmp_path: Path) -> None:
    tuner = Finetuner(without_weights(), num_classes=2, freeze_layers=UNREAD, learning_rate=1e-3, clip_norm=None)
    before = {name: tensor.clone() for name, tensor in tuner.model.state_dict().items()}
    history = tuner.fit(tones(), batch_size=16, epochs=3)
    assert history["loss"][-1] < history["loss"][0]
    moved = {name for name, tensor in tuner.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name.split(".level_blocks")[0] for name in moved if name.startswith("trunk.")} == {"trunk.encoders.2"}
    tuner.save(tmp_path / "tuned", standalone=True)
    again = Finetuner.load(tmp_path / "tuned", device="cpu")
    clip = tones()[0][0].unsqueeze(0)
    assert np.array_equal(again.predict_proba(clip), tuner.predict_proba(clip))


def little_prior(tmp_path: Path) -> PretrainedModel:
    path = write(
        tmp_path / "prior_level_2.pth.tar", published_form(JukeboxPrior(little("jukebox-5b"), 4, answers=True))
    )
    write(tmp_path / "vqvae.pth.tar", JukeboxVQVAE().state_dict())
    return load_pretrained_model("jukebox-5b", weights=path, device="cpu")


def test_tuners_find_places_in_a_prior(tmp_path: Path) -> None:
    adapted = AdapterTuner(little_prior(tmp_path), num_classes=3, adapter_size=2)
    assert {name.rsplit(".adapter", 1)[0] for name in adapted.own_parameters} == {
        f"trunk.prior.transformer._attn_mods.{block}.{layer}.c_proj" for block in (0, 1) for layer in ("attn", "mlp")
    }
    updated = LoraTuner(little_prior(tmp_path), num_classes=3, rank=2)
    assert all(".attn.c_attn." in name for name in updated.own_parameters) and len(updated.own_parameters) == 4
    Finetuner(little_prior(tmp_path), num_classes=3, freeze_layers=["y_emb", "prior.x_emb"])


def test_lora_in_a_prior_learns_codes(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        prior = published_form(JukeboxPrior(little("jukebox-5b"), 4, answers=True))
    path = write(tmp_path / "prior_level_2.pth.tar", prior)  # without the VQ-VAE beside it, so codes are what it reads
    model = load_pretrained_model("jukebox-5b", weights=path, device="cpu")
    codes = torch.randint(0, 4, (16, 12), generator=torch.Generator().manual_seed(4))
    codes += torch.tensor([0, 1000] * 8)[:, None]
    tuner = LoraTuner(model, num_classes=2, rank=2, learning_rate=0.1, solve_head=False)
    history = tuner.fit(ArrayDataset(codes, np.array([0, 1] * 8)), batch_size=16, epochs=12)
    assert history["loss"][-1] < 0.4


def test_codes_given_as_sounds_are_refused(tmp_path: Path) -> None:
    tuner = LoraTuner(little_prior(tmp_path), num_classes=2, rank=2)
    with pytest.raises(InputMismatchError, match="int64"):
        tuner.fit(ArrayDataset(torch.zeros(4, 12, dtype=torch.int64), np.array([0, 1] * 2)), batch_size=4, epochs=1)


def test_tuners_find_places_in_the_vqvae() -> None:
    adapted = AdapterTuner(without_weights(), num_classes=2, adapter_size=2, adapter_init_scale=0)
    assert {name.split(".level_blocks")[0] for name in adapted.own_parameters} == {"trunk.encoders.2"}
    assert torch.equal(adapted.model.embed(clips()), without_weights()(clips()))
    LoraTuner(without_weights(), num_classes=2, rank=2, target_layers="convolution")
