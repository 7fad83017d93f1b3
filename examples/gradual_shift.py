"""To a target that a model cannot reach in one step: source alone, self-training, gradual self-training.

Gaussian classes in 100 dimensions that move (Kumar, Ma & Liang, ICML 2020, section 5.1; nothing is read), and digits of
scikit-learn that turn from 0 to 60 degrees, each with 500 labelled samples at the start and none after it.

    python examples/gradual_shift.py --data gaussian digits --seeds 3
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean

import numpy
import torch
from torch import Tensor, nn

from neurenix.errors import NotGradualWarning
from neurenix.transfer import Finetuner
from neurenix.transfer.adaptation.gradual import GradualSelfTraining, adapt

PUBLISHED = {  # Kumar, Ma & Liang, tables 1 and 2; theirs are MNIST's digits, 28 x 28 and forty times as many
    "gaussian": {"source": 47.7, "target at once": 49.6, "whole way at once": 92.5, "gradual": 98.8, "soft": 90.5},
    "digits": {"source": 31.9, "target at once": 33.0, "whole way at once": 38.0, "gradual": 87.9, "soft": 44.1},
}
PUBLISHED["gaussian"] |= {"not regularised": 84.6}
PUBLISHED["digits"] |= {"not regularised": 45.8, "not trimmed": 80.3, "mixtures": 33.5}


@dataclass(frozen=True)
class Shift:
    """source: (inputs, targets). way: inputs in their order. mixtures: as many, of source and target alone. target:
    inputs. test: (inputs, targets) of the target. tuner: regularised? -> one that is not fitted yet.
    """

    source: tuple[Tensor, Tensor]
    way: Tensor
    mixtures: Tensor
    target: Tensor
    test: tuple[Tensor, Tensor]
    tuner: Callable[[bool], Finetuner]
    source_epochs: int
    epochs: int
    window: int
    batch_size: int


def gaussians(seed: int, small: bool = False) -> Shift:
    """Two classes with means of length 1 and variances from 0.05 to 0.1 in directions of their own; both move on a
    straight line to two others, means and covariances. 500 samples at the start, 5000 on the way.
    """
    random = numpy.random.default_rng(seed)
    size, way = 100, 2500 if small else 5000
    means = random.normal(size=(4, size))
    means /= numpy.linalg.norm(means, axis=1, keepdims=True)
    turns = [numpy.linalg.qr(random.normal(size=(size, size)))[0] for _ in means]
    covariances = [turn * random.uniform(0.05, 0.1, size) @ turn.T for turn in turns]

    def draw(shares: numpy.ndarray) -> tuple[Tensor, Tensor]:
        classes = random.integers(0, 2, len(shares))
        inputs = numpy.empty((len(shares), size))
        for place, (share, number) in enumerate(zip(shares, classes, strict=True)):
            middle = (1 - share) * means[number] + share * means[number + 2]
            covariance = (1 - share) * covariances[number] + share * covariances[number + 2]
            inputs[place] = middle + numpy.linalg.cholesky(covariance) @ random.normal(size=size)
        return torch.from_numpy(inputs).float(), torch.from_numpy(classes)

    def tuner(regularised: bool, rate: float = 1e-2) -> Finetuner:
        decay = 0.04 if regularised else 0.0  # 0.02 ‖w‖² in the loss, whose gradient is 0.04 w
        return _tuner(nn.Sequential(nn.Flatten(), nn.Linear(size, 2)), 2, decay, rate, seed)

    along = numpy.arange(way) / way
    return Shift(
        source=draw(numpy.zeros(500)),
        way=draw(along)[0],
        mixtures=draw((random.random(way) < along).astype(float))[0],
        target=draw(numpy.ones(way // 10))[0],
        test=draw(numpy.ones(1000)),
        tuner=tuner,
        source_epochs=20,
        epochs=20,
        window=way // 10,
        batch_size=125,
    )


class DigitNetwork(nn.Module):
    """Three convolutions, dropout and batch norm, as in the paper's section 5.1."""

    def __init__(self, dropout_rate: float, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (1, width, width):
            layers += [nn.Conv2d(channels, width, 5, stride=2, padding=2), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Dropout(dropout_rate), nn.BatchNorm2d(width), nn.Flatten())
        self.fc = nn.Linear(9 * width, 10)

    def forward(self, images: Tensor) -> Tensor:
        """images: (n, 1, 20, 20) -> (n, 10)."""
        logits: Tensor = self.fc(self.body(images))
        return logits


def digits(seed: int, small: bool = False) -> Shift:
    """Handwritten digits of 8 x 8 pixels, shown at 20 x 20; source at 0 to 5 degrees, target at 55 to 60. The 700
    pictures of the way are shown several times, each time at another angle. No picture is in two of the parts.
    """
    from scipy import ndimage
    from sklearn.datasets import load_digits

    random = numpy.random.default_rng(seed)
    found = load_digits()
    order = random.permutation(len(found.target))
    pictures = numpy.pad(ndimage.zoom(found.images[order] / 16, (1, 2, 2), order=1), ((0, 0), (2, 2), (2, 2)))
    numbers = found.target[order]

    def turned(places: numpy.ndarray, angles: numpy.ndarray) -> tuple[Tensor, Tensor]:
        images = [
            ndimage.rotate(pictures[place], angle, reshape=False, order=1)
            for place, angle in zip(places, angles, strict=True)
        ]
        return torch.from_numpy(numpy.stack(images)).float()[:, None], torch.from_numpy(numbers[places])

    def tuner(regularised: bool) -> Finetuner:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = DigitNetwork(0.5 if regularised else 0.0)
        return _tuner(network, 10, 1e-5 if regularised else 0.0, 1e-3, seed)

    start, between, target, test = numpy.split(numpy.arange(len(numbers)), [500, 1200, 1500])
    between = numpy.concatenate([random.permutation(between) for _ in range(4 if small else 8)])
    along = numpy.arange(len(between)) / len(between)
    first, last = (lambda many: random.uniform(0, 5, many)), (lambda many: random.uniform(55, 60, many))
    mixed = numpy.where(random.random(len(between)) < along, last(len(between)), first(len(between)))
    return Shift(
        source=turned(start, first(len(start))),
        way=turned(between, 5 + 55 * along)[0],
        mixtures=turned(between, mixed)[0],
        target=turned(target, last(len(target)))[0],
        test=turned(test, last(len(test))),
        tuner=tuner,
        source_epochs=30,
        epochs=5,
        window=200 if small else 280,
        batch_size=32,
    )


def _tuner(network: nn.Module, classes: int, weight_decay: float, rate: float, seed: int) -> Finetuner:
    """All layers learn at one constant rate."""
    return Finetuner(
        network,
        num_classes=classes,
        learning_rate=rate,
        layer_learning_rates=1.0,
        weight_decay=weight_decay,
        schedule="constant",
        precision="fp32",  # as published: networks this small gain no time by fewer digits
        warmup=0.0,
        clip_norm=None,
        frozen_prefix="never",
        seed=seed,
    )


def gradual(shift: Shift, tuner: Finetuner, way: Tensor, **settings: object) -> None:
    """Through `way` in windows, then the target."""
    method = GradualSelfTraining(**{"epochs": shift.epochs, "window": shift.window, **settings})  # type: ignore[arg-type]
    adapt(tuner, method, shift.source, shift.target, intermediate=[way], batch_size=shift.batch_size)


def at_once(shift: Shift, tuner: Finetuner, samples: Tensor) -> None:
    """Ordinary self-training: all samples are labelled, trained on, labelled anew, several times."""
    method = GradualSelfTraining(epochs=shift.epochs, at_break="go_on")
    domains = [samples] * 4
    adapt(tuner, method, shift.source, samples, intermediate=domains, batch_size=shift.batch_size)


def in_a_pool(shift: Shift, tuner: Finetuner) -> None:
    """The samples of the way in no order."""
    order = torch.from_numpy(numpy.random.default_rng(0).permutation(len(shift.way)))
    method = GradualSelfTraining(epochs=shift.epochs)
    adapt(tuner, method, shift.source, shift.target, pool=shift.way[order], batch_size=shift.batch_size)


ROWS: dict[str, Callable[[Shift, Finetuner], None]] = {
    "source": lambda shift, tuner: None,
    "target at once": lambda shift, tuner: at_once(shift, tuner, shift.target),
    "whole way at once": lambda shift, tuner: at_once(shift, tuner, shift.way),
    "gradual": lambda shift, tuner: gradual(shift, tuner, shift.way),
    "gradual, found in a pool": in_a_pool,
    "soft": lambda shift, tuner: gradual(shift, tuner, shift.way, labels="soft"),
    "not trimmed": lambda shift, tuner: gradual(shift, tuner, shift.way, trim=0.0),
    "not regularised": lambda shift, tuner: gradual(shift, tuner, shift.way),
    "mixtures": lambda shift, tuner: gradual(shift, tuner, shift.mixtures, at_break="go_on"),
    "mixtures, stopped": lambda shift, tuner: gradual(shift, tuner, shift.mixtures),
}
DATA: dict[str, Callable[[int, bool], Shift]] = {"gaussian": gaussians, "digits": digits}


def accuracy(shift: Shift, row: str) -> float:
    """In percent, on the target's test samples."""
    tuner = of_the_source(shift, regularised=row != "not regularised")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGradualWarning)
        ROWS[row](shift, tuner)
    return percent(shift, tuner)


def of_the_source(shift: Shift, regularised: bool = True) -> Finetuner:
    """A tuner that was trained on the source alone."""
    tuner = shift.tuner(regularised)
    tuner.fit(shift.source, epochs=shift.source_epochs, batch_size=shift.batch_size, run=False)
    return tuner


def percent(shift: Shift, tuner: Finetuner) -> float:
    """Accuracy on the target's test samples."""
    inputs, targets = shift.test
    return 100 * float((tuner.predict_proba(inputs).argmax(1) == targets.numpy()).mean())


def main() -> None:
    """Print a table for each kind of data."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=list(DATA), default=list(DATA))
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--small", action="store_true", help="half the samples on the way")
    arguments = parser.parse_args()
    for data in arguments.data:
        print(f"\n{data}: accuracy on the target in percent, {arguments.seeds} seeds")
        shifts = [DATA[data](seed, arguments.small) for seed in range(arguments.seeds)]
        for row in arguments.rows:
            found = [accuracy(shift, row) for shift in shifts]
            published = PUBLISHED[data].get(row, "")
            print(
                f"{row:26} {mean(found):5.1f}  ({min(found):.1f} to {max(found):.1f})  published {published}",
                flush=True,
            )


if __name__ == "__main__":
    main()
