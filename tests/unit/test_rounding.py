"""Weights in whole numbers whose errors cancel each other."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from neurenix.backends import fast_forward, named
from neurenix.backends._rounding import round_for_mean, round_for_smooth_maps, round_rows
from neurenix.devices import has_fast_int8
from neurenix.transfer import load_pretrained_model


def test_rounded_weights_are_within_half_a_step(generator: torch.Generator) -> None:
    """The largest of each row is 127 steps; 0.5 / 127 of it is the most that any weight is off."""
    weights = torch.randn(5, 9, generator=generator)
    weights[2] = 0
    for axis, shape in ((0, (1, 9)), (1, (5, 1))):
        rounded, scales = round_rows(weights, axis)
        assert torch.equal(rounded, rounded.round()) and scales.shape == shape and (scales > 0).all()
        largest = weights.abs().amax(axis, keepdim=True)
        assert ((rounded * scales - weights).abs() <= largest / 127 * 0.5001).all()
        assert (rounded.abs().amax(axis, keepdim=True)[largest > 0] == 127).all()


def test_the_mean_answer_stays(generator: torch.Generator) -> None:
    weights, mean = torch.randn(40, 60, generator=generator), torch.rand(40, 60, generator=generator) * 6
    rounded, scales = round_for_mean(weights, mean)
    usual, _ = round_rows(weights)
    error, before = (((weights - some * scales) * mean).sum(1).abs() for some in (rounded, usual))
    assert (error <= 0.5 * 6 * scales.squeeze(1)).all()  # half of what one weight can move it by
    assert error.mean() < 0.25 * before.mean()
    assert torch.equal(rounded, rounded.round()) and rounded.abs().max() == 127
    assert ((weights / scales - rounded).abs() < 1).all()  # the other neighbour at most
    squares = [((weights - some * scales) ** 2).sum() for some in (rounded, usual)]
    assert squares[0] < 1.3 * squares[1]


def test_no_other_rounding_is_much_better_for_the_mean(generator: torch.Generator) -> None:
    """All 2^8 ways of rounding eight weights up or down, one by one."""
    weights, mean = torch.randn(20, 8, generator=generator), torch.rand(20, 8, generator=generator)
    rounded, scales = round_for_mean(weights, mean)
    exact = weights / scales
    ways = torch.tensor(list(itertools.product((0.0, 1.0), repeat=8))).unsqueeze(1)  # (256, 1, 8)
    errors = ((exact - exact.floor() - ways) * mean).sum(2).abs()  # (256, 20)
    found, usual = (((exact - some) * mean).sum(1).abs() for some in (rounded, exact.round()))
    better, usually = ((errors < some - 1e-6).float().mean() for some in (found, usual))
    assert better < 0.2 and better < 0.6 * usually and (found <= usual + 1e-6).all()


@pytest.mark.parametrize("size", [(3,), (3, 3), (5, 5), (3, 5)])
def test_smooth_maps_get_nearly_the_same_answers(size: tuple[int, ...], generator: torch.Generator) -> None:
    kernels = torch.randn(200, *size, generator=generator)
    rounded, scales = round_for_smooth_maps(kernels)
    assert rounded.shape == kernels.shape and torch.equal(rounded, rounded.round()) and rounded.abs().max() <= 127
    usual, usual_scales = round_rows(kernels.flatten(1))
    constant = (kernels - rounded * scales).flatten(1).sum(1)  # the error where a map is 1 everywhere
    assert constant.pow(2).mean() < 0.4 * (kernels.flatten(1) - usual * usual_scales).sum(1).pow(2).mean()
    assert ((kernels - rounded * scales).abs().flatten(1).amax(1) <= 0.11 * kernels.abs().flatten(1).amax(1)).all()


def test_weights_of_zero_stay_zero() -> None:
    for rounded, scales in (
        round_for_mean(torch.zeros(2, 5), torch.ones(2, 5)),
        round_for_smooth_maps(torch.zeros(2, 3, 3)),
    ):
        assert not rounded.any() and (scales > 0).all()


class Blocks(nn.Module):
    """A stem, depthwise blocks with margins as TensorFlow has them, sums, a dilated convolution in groups."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU6())
        self.depthwise = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(16, 16, 3, groups=16), nn.ReLU6())
        self.project = nn.Sequential(nn.Conv2d(16, 16, 1, bias=False), nn.BatchNorm2d(16))
        self.doubled = nn.Conv2d(16, 32, 3, groups=16)
        self.grouped = nn.Conv2d(32, 24, 3, groups=4, dilation=2)

    def forward(self, images: Tensor) -> Tensor:
        seen = self.stem(images)
        padded = nn.functional.pad(self.depthwise(seen), (0, 1, 0, 1))
        seen = seen + self.project(padded[..., : seen.shape[-2], : seen.shape[-1]])
        return self.grouped(torch.relu(self.doubled(seen))).mean((2, 3))


class Sounds(nn.Module):
    """Convolutions over time, of inputs with a name and any length."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(1, 16, 5), nn.Conv1d(16, 32, 3, groups=16)
        self.third = nn.Conv1d(32, 24, 1)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.third(torch.relu(self.second(torch.relu(self.first(inputs["waveform"].unsqueeze(1)))))).mean(2)


@pytest.mark.skipif(not has_fast_int8(torch.device("cpu")), reason="the plugin rounds only where 8 bits are fast")
@torch.no_grad()
def test_every_kind_of_convolution_in_eight_bits(generator: torch.Generator) -> None:
    images = torch.randn(24, 3, 40, 40, generator=generator)
    sounds = {"waveform": torch.randn(24, 50, generator=generator)}
    for network, inputs in ((Blocks().eval(), images), (Sounds().eval(), sounds)):
        said: list[str] = []
        forward = fast_forward(
            network, inputs, samples=8, precision="fp32", exact=False, backend="openvino_int8", say=said.append
        )
        found, expected = forward(inputs), network(inputs)
        assert not said and isinstance(found, Tensor)
        assert float(torch.cosine_similarity(found, expected).min()) > 0.995
        assert not torch.allclose(found, expected, rtol=1e-5, atol=1e-6)  # so they are rounded


@pytest.mark.real_weights
@pytest.mark.skipif(not has_fast_int8(torch.device("cpu")), reason="the plugin rounds only where 8 bits are fast")
@torch.no_grad()
def test_efficientnet_keeps_its_features() -> None:
    """A network whose depthwise weights, rounded to the nearest, leave drawings a cosine of 0.97 at worst."""
    from neurenix.demos import clipart_path

    model = load_pretrained_model("efficientnet-lite0", device="cpu")
    files = sorted(clipart_path("train").rglob("*.*"))
    drawings = torch.stack([model.preprocess(str(path)) for path in files[:: len(files) // 48][:48]])
    forward = fast_forward(model, drawings[::3], samples=8, precision="fp32", exact=False, backend="openvino_int8")
    others = drawings[1::3]
    cosine = torch.cosine_similarity(named(forward(others))[""], model(others))
    assert float(cosine.min()) > 0.992 and float(cosine.mean()) > 0.997
