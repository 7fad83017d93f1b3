"""Maps of channels, resampled positions, spectrogram pictures and tokens, against timm, scipy and equations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from timm.models import adapt_input_conv
from torch import Tensor, nn

from neurenix.audio import MelImageInput
from neurenix.audio.mel_image import mel_picture
from neurenix.errors import ConfigurationError, UnknownNameError
from neurenix.nn import FeatureTokens, FrameAttention, SeriesPatches
from neurenix.transfer import adapt_resolution, load_pretrained_model
from neurenix.transfer.inputs._tokens import along_width
from neurenix.transfer.inputs.length import POSITIONS
from neurenix.vision.channels import (
    CHANNEL_MAPS,
    band_map,
    channel_scaling,
    convert_channels,
    dense_weight,
    usual_map,
)


@pytest.fixture
def weight(generator: torch.Generator) -> Tensor:
    return torch.randn(8, 3, 5, 5, generator=generator)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 13])
def test_usual_map_is_that_of_timm(weight: Tensor, channels: int) -> None:
    converted = convert_channels(weight, usual_map(channels, 3))
    torch.testing.assert_close(converted, adapt_input_conv(channels, weight.clone()), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("new", [2, 3, 13])
@pytest.mark.parametrize("old", [4, 13])
def test_any_channels_to_any_others_as_timm(new: int, old: int, generator: torch.Generator) -> None:
    weight = torch.randn(6, old, 3, 3, generator=generator)
    theirs = adapt_input_conv(new, weight.clone(), base_chans=old)
    torch.testing.assert_close(convert_channels(weight, usual_map(new, old)), theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("way", CHANNEL_MAPS)
@pytest.mark.parametrize(("new", "old"), [(1, 3), (2, 3), (4, 3), (13, 3), (3, 13), (1, 1)])
def test_every_way_maps_every_number(way: str, new: int, old: int, generator: torch.Generator) -> None:
    matrix = CHANNEL_MAPS[way](new, old)
    assert matrix.shape == (new, old)
    assert matrix.dtype == torch.float64
    weight = torch.randn(4, old, 3, 3, generator=generator)
    expected = torch.einsum("nc,ochw->onhw", matrix, weight.double())
    torch.testing.assert_close(convert_channels(weight, matrix).double(), expected, rtol=1e-5, atol=1e-6)


def test_sum_keeps_what_equal_channels_give(weight: Tensor, generator: torch.Generator) -> None:
    grey = torch.randn(2, 1, 9, 9, generator=generator, dtype=torch.float64)
    expected = nn.functional.conv2d(grey.expand(-1, 3, -1, -1), weight.double())
    for new in (1, 2, 13):
        converted = convert_channels(weight.double(), CHANNEL_MAPS["sum"](new, 3))
        torch.testing.assert_close(nn.functional.conv2d(grey.expand(-1, new, -1, -1), converted), expected)


def test_three_to_thirteen_and_back_by_the_inverse(weight: Tensor) -> None:
    matrix = usual_map(13, 3)
    back = convert_channels(convert_channels(weight, matrix), torch.linalg.pinv(matrix))
    torch.testing.assert_close(back, weight, rtol=1e-5, atol=1e-6)


def test_identity_keeps_every_bit(weight: Tensor) -> None:
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        assert torch.equal(convert_channels(weight.to(dtype), torch.eye(3)), weight.to(dtype))


def test_bands_by_hand() -> None:
    bands = {"red": "red", "nir": "red", "swir": {"red": 0.5, "green": 0.25}, "mask": {}}
    matrix = band_map(bands, ("red", "green", "blue"))
    assert matrix.tolist() == [[1, 0, 0], [1, 0, 0], [0.5, 0.25, 0], [0, 0, 0]]
    with pytest.raises(UnknownNameError, match="no band 'gren'; closest: green"):
        band_map({"a": "gren"}, ("red", "green", "blue"))


def test_scaling_follows_the_shares() -> None:
    matrix = band_map({"red": "red", "both": {"red": 3.0, "blue": -1.0}, "none": {}}, ("red", "blue"))
    assert channel_scaling((1.0, 5.0), matrix) == (1.0, 2.0, 3.0)


def test_a_map_of_another_width_is_refused(weight: Tensor) -> None:
    with pytest.raises(ConfigurationError, match="3 columns"):
        convert_channels(weight, torch.ones(2, 4))


@pytest.mark.parametrize("groups", [2, 4])
def test_dense_weight_computes_what_groups_did(groups: int, generator: torch.Generator) -> None:
    grouped = nn.Conv2d(4, 8, 3, groups=groups, bias=False)
    images = torch.randn(2, 4, 8, 8, generator=generator)
    dense = nn.functional.conv2d(images, dense_weight(grouped.weight, groups))
    torch.testing.assert_close(dense, grouped(images))


@pytest.mark.parametrize(("size", "patch"), [((96, 64), 16), ((32, 160), 16), ((64, 64), 8), ((96, 48), 24)])
def test_positions_and_patches_are_resampled_as_timm_does(size: tuple[int, int], patch: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = load_pretrained_model(
            "vit-tiny-patch16-224", weights=None, input_shape=(64, 64, 3), include_top=False, device="cpu"
        )
    trunk = model.trunk
    positions, filters = trunk.pos_embed.detach().clone(), trunk.patch_embed.proj.weight.detach().clone()
    adapt_resolution(model, size, patch_size=patch)
    grid = [side // patch for side in size]
    expected = resample_abs_pos_embed(positions, grid, old_size=[4, 4], num_prefix_tokens=1)
    assert torch.equal(trunk.pos_embed, expected)
    assert torch.equal(trunk.pos_embed[:, 0], positions[:, 0])
    assert torch.equal(trunk.patch_embed.proj.weight, resample_patch_embed(filters, [patch, patch]))
    assert trunk.patch_embed.grid_size == tuple(grid)
    assert model(torch.zeros(1, 3, *size)).shape == (1, 192)


def test_positions_along_the_width() -> None:
    grid = torch.arange(12.0).reshape(1, 12, 1)  # rows 0..3, 4..7, 8..11: columns have the means 4, 5, 6, 7
    assert along_width(grid, (3, 4), 4).flatten().tolist() == [4, 5, 6, 7]
    assert along_width(grid, (3, 4), 2).flatten().tolist() == [4.5, 6.5]


def test_positions_for_longer_texts_by_hand() -> None:
    rows = torch.tensor([[9.0], [0], [2], [4]])
    assert POSITIONS["repeat"](rows, 9).flatten().tolist() == [9, 0, 2, 4, 0, 2, 4, 0, 2]
    assert POSITIONS["interpolate"](rows, 6).flatten().tolist() == [9, 0, 1, 2, 3, 4]
    for way in POSITIONS.values():
        assert torch.equal(way(rows, 4), rows)


def test_a_tone_is_a_line_at_its_height() -> None:
    spec = MelImageInput(size=(64, 98), sample_rate=16_000, seconds=1.0, mels=64)
    seconds = torch.arange(16_000) / 16_000
    picture = mel_picture(0.5 * torch.sin(2 * math.pi * 1000 * seconds), spec)
    assert picture.shape == (1, 64, 98)
    # Slaney's scale: 1 kHz is mel 15, 8 kHz 15 + 27 ln 8 / ln 6.4 = 45.2; 66 edges, so band 15 / 45.2 * 65 - 1 = 20.5
    rows = picture[0].argmax(0)
    assert set(rows.tolist()) <= {63 - 20, 63 - 21}
    assert float(picture.max() - picture.min()) == pytest.approx(80, abs=1e-3)


def test_the_power_of_a_picture_by_scipy() -> None:
    signal = pytest.importorskip("scipy.signal")
    samples = np.random.default_rng(0).normal(size=16_000).astype(np.float32)
    spec = MelImageInput(size=(32, 98), sample_rate=16_000, seconds=1.0, mels=32)
    _, _, theirs = signal.spectrogram(
        samples,
        16_000,
        signal.get_window("hann", 400),
        400,
        240,
        512,
        detrend=False,
        scaling="spectrum",
        mode="complex",
    )
    from neurenix.audio.mel import slaney_filters

    powers = np.abs(theirs * signal.get_window("hann", 400).sum()) ** 2  # its scaling: each window adds up to 1
    decibels = 10 * np.log10(powers.T @ slaney_filters(16_000, 512, 32, 0.0, 8_000.0).numpy()).T[::-1]
    np.testing.assert_allclose(mel_picture(torch.from_numpy(samples), spec)[0].numpy(), decibels, atol=2e-2)


def test_feature_tokens_by_their_equation(generator: torch.Generator) -> None:
    tokens = FeatureTokens(2, (3,), 4)
    values, categories = torch.randn(5, 2, generator=generator), torch.tensor([[0], [1], [2], [2], [1]])
    made = tokens({"values": values, "categories": categories})
    assert made.shape == (5, 3, 4)
    row, column = 3, 1
    torch.testing.assert_close(made[row, column], tokens.bias[column] + values[row, column] * tokens.weight[column])
    torch.testing.assert_close(made[row, 2], tokens.bias[2] + tokens.tables[0].weight[2])
    assert float(tokens.weight.detach().abs().max()) <= 0.5  # 1 / sqrt(4)


def test_series_patches_are_a_linear_map_of_each_piece(generator: torch.Generator) -> None:
    patches = SeriesPatches(2, 4, 3)
    series = torch.randn(5, 2, 12, generator=generator)
    made = patches({"series": series})
    assert made.shape == (5, 3, 3)
    second = series[:, :, 4:8].flatten(1) @ patches.proj.weight.flatten(1).T + patches.proj.bias
    torch.testing.assert_close(made[:, 1], second)


def test_attention_over_frames_begins_as_the_mean(generator: torch.Generator) -> None:
    attention, vectors = FrameAttention(4), torch.randn(3, 5, 4, generator=generator)
    torch.testing.assert_close(attention(vectors)[:, 0], vectors.mean(1))
    with torch.no_grad():
        attention.query.copy_(torch.tensor([2.0, 0, 0, 0]))
    weights = torch.softmax(vectors[..., 0], 1)  # 2 x / sqrt(4)
    torch.testing.assert_close(attention(vectors)[:, 0], (weights[..., None] * vectors).sum(1))
