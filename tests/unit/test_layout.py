"""Images by pixels: who gets them so, what it changes (nothing but rounding and time), and who cannot read them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neurenix.backends import by_pixels
from neurenix.data import Batch
from neurenix.training.prefix import layout
from neurenix.training.prefix.layout import Layout, wants_pixels
from neurenix.transfer import Finetuner

PIXELS = torch.channels_last
ONLY_WITH_ONEDNN = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="planes are as good without oneDNN"
)


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


class _BackByViews(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:
        return maps.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].view(-1).view(gradients[0].shape)


def averaged(maps: Tensor) -> Tensor:
    return maps.mean((2, 3))


def viewed(maps: Tensor) -> Tensor:
    return maps.view(len(maps), -1)[:, :8]


def viewed_by_the_number_of_samples(maps: Tensor) -> Tensor:
    """By pixels this is possible for one sample, and for no more of them."""
    return maps.view(maps.shape[0] * maps.shape[1], -1).mean(1).view(len(maps), -1)


def strided(maps: Tensor) -> Tensor:
    """Other numbers, and no error, where they lie in another order."""
    return torch.as_strided(maps, (len(maps), 8), (72, 1))


def learned_by_views(maps: Tensor) -> Tensor:
    found: Tensor = _BackByViews.apply(maps)
    return averaged(nn.functional.conv2d(found, torch.eye(8)[..., None, None]))


READERS = [averaged, viewed, viewed_by_the_number_of_samples, strided, learned_by_views]


class Network(nn.Module):
    """A convolution, one that sees one channel at a time with statistics of its own, and a way to read their maps."""

    counted: Tensor

    def __init__(self, read: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.seen = nn.Conv2d(3, 8, 3, stride=2), Seen()
        self.second, self.norm = nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8)
        self.drop, self.read = nn.Dropout2d(0.2), read
        self.register_buffer("counted", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        self.counted += 1  # in any mode
        return self.read(self.drop(self.norm(self.second(self.seen(self.first(images).relu())))))


def network(read: Callable[[Tensor], Tensor] = averaged) -> Network:
    torch.manual_seed(0)
    return Network(read)


def fitted(read: Callable[[Tensor], Tensor]) -> Finetuner:
    tuner = Finetuner(nn.Sequential(network(read), nn.Linear(8, 2)), 2, strategy="full", seed=0)
    with warnings.catch_warnings(action="ignore"):
        tuner.fit((images(20), torch.arange(20) % 2), epochs=2, batch_size=4, run=False)
    return tuner


def test_only_maps_change_their_layout() -> None:
    inputs = {"maps": images(), "one": images()[:, :1], "vectors": torch.rand(6, 5), "none": images()[:, :0]}
    found = by_pixels(inputs)
    for name in ("maps", "one"):
        assert torch.equal(found[name], inputs[name])
        assert found[name].stride() == (144 * found[name].shape[1], 1, 12 * found[name].shape[1], found[name].shape[1])
    assert all(found[name] is inputs[name] for name in ("vectors", "none"))


def test_pixels_are_for_convolutions_on_the_cpu() -> None:
    assert wants_pixels(network(), images()) is torch.backends.mkldnn.is_available()
    assert not wants_pixels(nn.Sequential(nn.Flatten(), nn.Linear(432, 2)), images())
    assert not wants_pixels(nn.Conv1d(3, 3, 1), torch.rand(2, 3, 4))
    assert not wants_pixels(network().to("meta"), images().to("meta"))


@ONLY_WITH_ONEDNN
@pytest.mark.parametrize("read", READERS)
def test_a_fit_makes_its_steps_in_the_layout_in_which_a_network_does_the_same(read: Any) -> None:
    seen = next(part for part in fitted(read).model.modules() if isinstance(part, Seen))
    assert seen.by_pixels[-5:] == [read is averaged] * 5  # steps of the last epoch


@pytest.mark.parametrize("read", READERS)
def test_looking_at_a_network_leaves_no_trace(read: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Buffers that are written in any mode, and what is drawn in training, are as without it."""
    looked = fitted(read)
    monkeypatch.setattr(layout, "wants_pixels", lambda module, inputs: False)
    never = fitted(read)
    rounding = {"rtol": 1e-2, "atol": 1e-2} if read is averaged else {"rtol": 0.0, "atol": 0.0}
    for name, tensor in looked.model.state_dict().items():
        torch.testing.assert_close(tensor, never.model.state_dict()[name], **rounding)


class Named(nn.Module):
    """Maps, or maps among other things."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, inputs: Any) -> Tensor:
        answers: Tensor = self.body(inputs if isinstance(inputs, Tensor) else inputs["maps"])
        return answers


class Chaotic(nn.Module):
    """Sums of many numbers, of which batch norm then sees little but the rounding."""

    def __init__(self, read: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.read = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), read
        self.offset = nn.Parameter(torch.full((), 3e5))

    def forward(self, images: Tensor) -> Tensor:
        return self.read(self.norm(self.first(images) + self.offset))


@ONLY_WITH_ONEDNN
@pytest.mark.parametrize("read", READERS)
def test_rounding_that_is_blown_up_is_not_another_answer(read: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    precisions, check = list[torch.dtype](), layout.check_same

    def noted(module: nn.Module, *given: Any, **options: Any) -> None:
        precisions.append(next(module.parameters()).dtype)
        check(module, *given, **options)

    monkeypatch.setattr(layout, "check_same", noted)
    strides = Layout(Chaotic(read), True)(images()).stride()
    assert strides == (by_pixels(images()) if read is averaged else images()).stride()
    assert read is not averaged or precisions == [torch.float32, torch.float64]


@ONLY_WITH_ONEDNN
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float64])
def test_maps_that_came_in_other_digits_are_laid_out_too(precision: torch.dtype) -> None:
    """As frozen layers gave them in bf16, or for a network of fp64."""
    module = network().double() if precision == torch.float64 else network()
    for inputs in (images().to(precision), {"maps": images().to(precision), "number": torch.arange(6)}):
        found = Layout(Named(module), True)(inputs)
        maps = found if isinstance(found, Tensor) else found["maps"]
        assert maps.dtype == precision and maps.is_contiguous(memory_format=PIXELS)


@ONLY_WITH_ONEDNN
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("count", [1, 5])
def test_the_answer_is_the_same_whatever_batch_is_the_first(count: int, training: bool) -> None:
    for read in READERS[: 5 if training else 4]:
        module = network(read).train(training)
        first = Batch(images(count), None, torch.arange(count))
        strides = Layout(module, training)(first.inputs, first.targets).stride()
        assert strides == (by_pixels(images(count)) if read is averaged else images(count)).stride()
        assert float(module.counted) == 0


def test_a_network_that_refuses_two_samples_gets_them_as_they_are() -> None:
    class Four(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 3)

        def forward(self, images: Tensor) -> Tensor:
            assert len(images) == 4, "always four"
            return averaged(self.layer(images))

    first = Batch(images(4), None, torch.arange(4))
    assert Layout(Four(), training=True)(first.inputs) is first.inputs
