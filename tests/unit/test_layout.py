"""Images by pixels: who gets them so, what it changes (nothing but rounding and time), and who cannot read them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from neurenix.backends import by_pixels, eager, wants_pixels
from neurenix.transfer import Finetuner

CPU = torch.device("cpu")
PIXELS = torch.channels_last


def images(count: int = 6) -> Tensor:
    return torch.rand(count, 3, 12, 12, generator=torch.Generator().manual_seed(0))


class Seen(nn.Module):
    """Keeps the layout of what enters it."""

    def __init__(self) -> None:
        super().__init__()
        self.by_pixels: list[bool] = []

    def forward(self, maps: Tensor) -> Tensor:
        self.by_pixels.append(maps.is_contiguous(memory_format=PIXELS))
        return maps


class Network(nn.Module):
    """A convolution, one that sees one channel at a time, and a vector."""

    def __init__(self, reads_views: bool = False) -> None:
        super().__init__()
        self.first, self.seen = nn.Conv2d(3, 8, 3, stride=2), Seen()
        self.second = nn.Conv2d(8, 8, 3, groups=8)
        self.drop = nn.Dropout(0.2)
        self.reads_views = reads_views

    def forward(self, images: Tensor) -> Tensor:
        maps = self.second(self.seen(self.first(images).relu()))
        return self.drop(maps).view(len(images), -1) if self.reads_views else self.drop(maps).mean((2, 3))


def test_only_maps_change_their_layout() -> None:
    inputs = {"maps": images(), "one": images()[:, :1], "vectors": torch.rand(6, 5), "none": images()[:, :0]}
    found = by_pixels(inputs)
    assert found["maps"].is_contiguous(memory_format=PIXELS) and torch.equal(found["maps"], inputs["maps"])
    assert all(found[name] is inputs[name] for name in ("one", "vectors", "none"))


def test_pixels_are_for_convolutions_on_the_cpu() -> None:
    assert wants_pixels(Network(), images()) is torch.backends.mkldnn.is_available()
    assert not wants_pixels(nn.Sequential(nn.Flatten(), nn.Linear(432, 2)), images())
    assert not wants_pixels(nn.Conv1d(3, 3, 1), torch.rand(2, 3, 4))
    assert not wants_pixels(Network(), images().to("meta"))


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="planes are as good without oneDNN")
@pytest.mark.parametrize("reads_views", [False, True])
def test_eager_torch_answers_the_same_in_the_layout_that_a_network_can_read(reads_views: bool) -> None:
    network = Network(reads_views).eval()
    forward = eager(network, CPU, "fp32")
    found = [forward(images()), forward(images(4))]
    assert network.seen.by_pixels == ([True, False, False] if reads_views else [True, True])
    with torch.no_grad():
        assert torch.allclose(found[0], network(images()), atol=1e-6)
        assert torch.allclose(found[1], network(images(4)), atol=1e-6)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="planes are as good without oneDNN")
@pytest.mark.parametrize("reads_views", [False, True])
def test_a_fit_makes_its_steps_in_the_layout_that_a_network_can_read(reads_views: bool) -> None:
    tuner = fitted(reads_views)
    seen = next(part for part in tuner.model.modules() if isinstance(part, Seen))
    assert seen.by_pixels[-5:] == [not reads_views] * 5  # steps of the last epoch


def fitted(reads_views: bool) -> Finetuner:
    torch.manual_seed(0)
    network = nn.Sequential(Network(reads_views), nn.Linear(72 if reads_views else 8, 2))
    tuner = Finetuner(network, 2, strategy="full", seed=0)
    tuner.fit((images(20), torch.arange(20) % 2), epochs=2, batch_size=4, run=False)
    return tuner


def test_looking_whether_a_network_can_read_pixels_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Running statistics, and what is drawn in training, are as without it."""
    from neurenix.training.prefix import layout

    looked = fitted(reads_views=True)
    monkeypatch.setattr(layout, "wants_pixels", lambda module, inputs: False)
    never = fitted(reads_views=True)
    for name, tensor in looked.model.state_dict().items():
        assert torch.equal(tensor, never.model.state_dict()[name]), name
    assert [epoch["loss"] for epoch in looked.history.epochs] == [epoch["loss"] for epoch in never.history.epochs]
