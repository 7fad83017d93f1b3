"""Depthwise convolutions whose gradients are taken in another way than torch's: its numbers, and where."""

from __future__ import annotations

import contextlib
import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from neurenix.data import ArrayDataset
from neurenix.training import depthwise
from neurenix.training.depthwise import maps_gradient, weight_gradient
from neurenix.training.faster_calls import faster_calls
from neurenix.transfer import Finetuner

CPU = torch.device("cpu")
CHANNELS = 6
Pair = tuple[int, int]


class Counted:
    """weight_gradient, and how often it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        monkeypatch.setattr(depthwise, "weight_gradient", self)

    def __call__(self, *given: Any) -> Tensor:
        self.count += 1
        return weight_gradient(*given)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


def cases() -> list[tuple[Pair, Pair, Pair, Pair]]:
    """(height and width, kernel, stride, padding) of which something comes out."""
    sizes, kernels = [(1, 1), (2, 3), (5, 4), (9, 7)], [(1, 1), (3, 3), (5, 5), (7, 7), (3, 5), (5, 3), (1, 9), (4, 4)]
    found = []
    for size, kernel, stride in itertools.product(sizes, kernels, [(1, 1), (2, 2), (1, 3), (9, 1)]):
        for padding in {(0, 0), (kernel[0] // 2, kernel[1] // 2), (kernel[0] + 1, 1)}:
            if all(side + 2 * margin >= taps for side, margin, taps in zip(size, padding, kernel, strict=True)):
                found.append((size, kernel, stride, padding))
    return found


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["planes", "pixels"])
def test_the_gradient_is_torchs_for_every_shape(layout: torch.memory_format, generator: torch.Generator) -> None:
    assert len(cases()) > 100
    for size, kernel, stride, padding in cases():
        maps = torch.randn(4, CHANNELS, *size, generator=generator).contiguous(memory_format=layout)
        weights = torch.randn(CHANNELS, 1, *kernel, generator=generator, dtype=torch.float64, requires_grad=True)
        answers = functional.conv2d(maps.double(), weights, None, stride, padding, 1, CHANNELS)
        gradient = torch.randn(answers.shape, generator=generator).contiguous(memory_format=layout)
        (expected,) = torch.autograd.grad(answers, weights, gradient.double())
        found = weight_gradient(maps, gradient, kernel, stride, padding)
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


def test_the_gradient_by_hand() -> None:
    """One map of ones in a row of four: a tap's gradient is the number of its places inside."""
    maps, gradient = torch.ones(1, 1, 1, 4), torch.ones(1, 1, 1, 4)
    found = weight_gradient(maps, gradient, (1, 5), (1, 1), (0, 2))
    assert found.flatten().tolist() == [2, 3, 4, 3, 2]


def depthwise_layer(kernel: int = 5, **options: Any) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(CHANNELS, CHANNELS, kernel, groups=CHANNELS, **options)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_step_is_torchs(bias: bool, stride: int, counted: Counted, generator: torch.Generator) -> None:
    layer = depthwise_layer(padding=2, bias=bias, stride=stride)
    values = torch.randn(3, CHANNELS, 8, 8, generator=generator, requires_grad=True)
    results = []
    for faster in (True, False):
        with faster_calls(layer, CPU) if faster else contextlib.nullcontext():
            answers = layer(values)
        results.append([answers, *torch.autograd.grad(answers.square().sum(), [values, *layer.parameters()])])
    assert counted.count == 1
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_gradient_of_gradients_is_torchs(counted: Counted, generator: torch.Generator) -> None:
    layer = depthwise_layer(padding=2)
    values = torch.randn(2, CHANNELS, 4, 4, generator=generator, requires_grad=True)
    found = []
    for faster in (True, False):
        with faster_calls(layer, CPU) if faster else contextlib.nullcontext():
            answers = layer(values)
        first = torch.autograd.grad(answers.square().sum(), [values, layer.weight], create_graph=True)
        found.append(torch.autograd.grad(sum(part.square().sum() for part in first), [values, layer.weight]))
    assert counted.count > 0
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)


def test_gradients_of_each_sample(counted: Counted, generator: torch.Generator) -> None:
    """torch.func, whose transforms a layer of ours has to go through."""
    layer, images = depthwise_layer(padding=2), torch.randn(3, CHANNELS, 6, 6, generator=generator)

    def loss(weight: Tensor, image: Tensor) -> Tensor:
        return functional.conv2d(image[None], weight, None, 1, 2, 1, CHANNELS).square().sum()

    with faster_calls(layer, CPU):
        found = torch.func.vmap(torch.func.grad(loss), (None, 0))(layer.weight, images)
    assert counted.count > 0
    for image, gradient in zip(images, found, strict=True):
        (expected,) = torch.autograd.grad(loss(layer.weight, image), layer.weight)
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "layer",
    [
        depthwise_layer(dilation=2, padding=4),
        depthwise_layer(padding="same"),
        depthwise_layer(3, padding=1),
        nn.Conv2d(CHANNELS, CHANNELS, 5, padding=2, groups=3),
        nn.Conv2d(CHANNELS, 2 * CHANNELS, 5, padding=2, groups=CHANNELS),
        depthwise_layer(padding=2).requires_grad_(False),
    ],
    ids=["dilated", "same", "3 x 3", "groups", "several answers", "frozen"],
)
def test_other_convolutions_stay_torchs(layer: nn.Conv2d, counted: Counted) -> None:
    values = torch.randn(2, CHANNELS, 8, 8, requires_grad=True)
    with faster_calls(depthwise_layer(), CPU):
        layer(values).sum().backward()
    assert counted.count == 0 and values.grad is not None


@pytest.mark.parametrize(
    ("kernel", "stride", "side", "ours"),
    [(3, 1, 2, 1), (3, 1, 3, 0), (5, 1, 40, 1), (5, 2, 14, 1), (5, 2, 15, 0), (4, 1, 8, 1)],
)
def test_only_where_torch_is_slow(kernel: int, stride: int, side: int, ours: int, counted: Counted) -> None:
    layer = depthwise_layer(kernel, padding=kernel // 2, stride=stride)
    with faster_calls(layer, CPU):
        layer(torch.randn(2, CHANNELS, side, side)).sum().backward()
    assert counted.count == ours


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # torch's own rules for them
def test_derivatives_that_go_forwards_stay_torchs(counted: Counted, generator: torch.Generator) -> None:
    layer, values = depthwise_layer(padding=2), torch.randn(2, CHANNELS, 6, 6, generator=generator)
    with faster_calls(layer, CPU), forward_ad.dual_level():
        found = forward_ad.unpack_dual(layer(forward_ad.make_dual(values, values))).tangent
    torch.testing.assert_close(found, layer(values) - layer.bias.view(-1, 1, 1))  # type: ignore[union-attr]
    assert counted.count == 0


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["planes", "pixels"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_the_gradient_of_maps_is_torchs_for_every_shape(
    layout: torch.memory_format, precision: torch.dtype, generator: torch.Generator
) -> None:
    rounding = 1e-4 if precision == torch.float32 else 2e-2
    for size, kernel, stride, padding in cases():
        maps = torch.randn(4, CHANNELS, *size, generator=generator).to(precision).contiguous(memory_format=layout)
        weights = torch.randn(CHANNELS, 1, *kernel, generator=generator).to(precision)
        reference = maps.double().requires_grad_()
        answers = functional.conv2d(reference, weights.double(), None, stride, padding, 1, CHANNELS)
        gradient = torch.randn(answers.shape, generator=generator).to(precision).contiguous(memory_format=layout)
        (expected,) = torch.autograd.grad(answers, reference, gradient.double())
        found = maps_gradient(maps, weights, gradient, stride, padding)
        assert found.dtype == precision
        assert float((found.double() - expected).norm()) <= rounding * float(expected.norm())


def test_steps_in_bf16_are_backed_in_fp32(monkeypatch: pytest.MonkeyPatch, generator: torch.Generator) -> None:
    """torch has no fast kernel for maps' gradients there: what is asked of it is in fp32."""
    asked, backed = list[Any](), torch.ops.aten.convolution_backward

    def noted(gradient: Tensor, *given: Any) -> Any:
        asked.append((gradient.dtype, given[-1][0]))
        return backed(gradient, *given)

    monkeypatch.setattr(torch.ops.aten, "convolution_backward", noted)
    values = torch.randn(2, CHANNELS, 8, 8, generator=generator)
    for stride in (1, 2):
        maps, gradient = values.bfloat16(), values[:, :, ::stride, ::stride].bfloat16()
        maps_gradient(maps, torch.ones(CHANNELS, 1, 3, 3).bfloat16(), gradient, (stride, stride), (1, 1))
    assert asked == [(torch.bfloat16, True), (torch.float32, True)]


@pytest.mark.parametrize("trained", [True, False], ids=["trained", "frozen"])
@pytest.mark.parametrize(("kernel", "stride"), [(5, 1), (5, 2), (3, 2)])
def test_a_step_in_bf16_is_torchs(
    kernel: int, stride: int, trained: bool, counted: Counted, generator: torch.Generator
) -> None:
    layer = depthwise_layer(kernel, padding=kernel // 2, stride=stride).requires_grad_(trained)
    values = torch.randn(3, CHANNELS, 24, 24, generator=generator, requires_grad=True)
    wanted = [values, *layer.parameters()] if trained else [values]
    results, steps = [], []
    for faster in (True, False):
        with faster_calls(layer, CPU) if faster else contextlib.nullcontext():
            with torch.autocast("cpu", torch.bfloat16):
                answers = layer(values)
        steps.append(type(answers.grad_fn).__name__)
        results.append([answers.detach(), *torch.autograd.grad(answers.float().square().sum(), wanted)])
    assert steps[0].startswith("_Depthwise") is (stride == 2 or trained) and steps[1].startswith("Conv")
    assert counted.count == int(trained and kernel == 5)
    for found, expected in zip(*results, strict=True):
        assert found.dtype == expected.dtype
        assert float((found - expected).float().norm()) <= 2e-2 * float(expected.float().norm())


def test_layers_that_run_again_stay_torchs(counted: Counted) -> None:
    layer, values = depthwise_layer(padding=2), torch.randn(2, CHANNELS, 8, 8, requires_grad=True)
    with faster_calls(layer, CPU):
        again = checkpoint(layer, values, use_reentrant=False)
    again.sum().backward()
    assert counted.count == 0 and layer.weight.grad is not None


def test_other_precisions_and_two_of_them_stay_torchs(counted: Counted) -> None:
    layer = depthwise_layer(padding=2)
    with faster_calls(layer, CPU):
        with torch.autocast("cpu", torch.float16):
            layer(torch.randn(2, CHANNELS, 8, 8)).sum().backward()
        copy.deepcopy(layer).double()(torch.randn(2, CHANNELS, 8, 8).double()).sum().backward()
        with pytest.raises(RuntimeError, match="same"):
            layer(torch.randn(2, CHANNELS, 8, 8).bfloat16())
    assert counted.count == 0


class Small(nn.Module):
    """A convolution, a depthwise one, and the mean."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, CHANNELS, 1), depthwise_layer(padding=2)
        self.head = nn.Linear(CHANNELS, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.second(self.first(images).relu()).relu().mean((2, 3)))


@pytest.mark.parametrize("frozen", [None, ["first"]], ids=["all", "above frozen layers"])
def test_a_fit_takes_it(frozen: list[str] | None, counted: Counted, generator: torch.Generator) -> None:
    data = ArrayDataset(torch.randn(24, 3, 8, 8, generator=generator), torch.arange(24) % 2)
    options: dict[str, Any] = {"strategy": "full"} if frozen is None else {"freeze_layers": frozen}
    tuner = Finetuner(Small(), 2, seed=0, precision="fp32", **options)
    tuner.fit(data, epochs=2, batch_size=8, run=False)
    assert counted.count >= 6
