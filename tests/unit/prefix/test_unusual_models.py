"""Whatever a model or its data do: with stored rows they are trained as without, or the rows are not stored."""

from __future__ import annotations

import random
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.prefix.fits import Convolutional, Images, Texts, Words, digests, fitted, gap, numbers
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from neurenix.callbacks import Callback
from neurenix.errors import NonFiniteError, SkippedSamplesWarning, UnreadableSampleError
from neurenix.transfer import Finetuner


def agree(
    make: Callable[[], nn.Module], frozen: list[str], data: Callable[[int], Any] = Images, **options: Any
) -> None:
    """Rows stored or not, histories and weights are the same."""
    options = {"freeze_layers": frozen, "make": make, **options}
    validation = options.pop("validation", lambda: None)
    samples = options.pop("samples", 24)
    tuners = [fitted("last stage", use, data(samples), validation(), **options) for use in ("always", "never")]
    print(f"largest difference: {gap(*tuners):.1e}")
    assert gap(*tuners) < 1e-6


class Base(nn.Module):
    """A frozen convolution, a trained one, what `top` makes of it, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2)
        self.last = nn.Conv2d(6, 6, 3)
        self.more = nn.Conv2d(6, 6, 1)
        self.register_buffer("mean", torch.zeros(6))
        self.fc = nn.Linear(6, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.top(self.last(self.stem(images).relu()).relu()).mean((2, 3)))

    def top(self, values: Tensor) -> Tensor:
        return self.more(values).relu()


# --- how gradients flow in the trained part ------------------------------------------------------------------------


class Detached(Base):
    def top(self, values: Tensor) -> Tensor:
        return self.more(values).relu() + 0.5 * values.detach()


class StraightThrough(Base):
    def top(self, values: Tensor) -> Tensor:
        values = self.more(values)
        return values + ((values * 4).round() / 4 - values).detach()


class Checkpointed(Base):
    def top(self, values: Tensor) -> Tensor:
        return checkpoint(lambda part: self.more(part).relu(), values, use_reentrant=False)


class Gated(Base):
    """The gate takes no gradient."""

    def top(self, values: Tensor) -> Tensor:
        with torch.no_grad():
            gate = self.more(values).sigmoid()
        return self.more(values).relu() * gate


class Negated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


class Reversed(Base):
    """Gradient reversal, as in domain adaptation."""

    def top(self, values: Tensor) -> Tensor:
        return self.more(Negated.apply(values)).relu()


class Damped(Base):
    """A hook on a value's gradient."""

    def top(self, values: Tensor) -> Tensor:
        values = self.more(values)
        if values.requires_grad:
            values.register_hook(lambda gradient: gradient * 0.1)
        return values.relu()


@pytest.mark.parametrize(
    "make",
    [
        Detached,
        StraightThrough,
        Checkpointed,
        Gated,
        Reversed,
        Damped,
    ],
)
def test_gradients_flow_as_the_model_says(make: type[Base]) -> None:
    agree(make, ["stem"])


def test_what_is_said_is_what_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    fitted("last stage", "always", Images(24), make=Gated, freeze_layers=["stem"])
    (said,) = [line for line in capsys.readouterr().out.splitlines() if "frozen layers" in line]
    assert "run in every" in said


# --- state that a pass writes --------------------------------------------------------------------------------------


class Counting(Base):
    """A buffer that each pass in training mode adds to."""

    def top(self, values: Tensor) -> Tensor:
        if self.training:
            self.mean += 0.1
        return self.more(values).relu() / (1 + self.mean[:, None, None])


class Averaging(Base):
    """Centred by a running mean that is written in two operations, one after the other."""

    def top(self, values: Tensor) -> Tensor:
        values = self.more(values).relu()
        if self.training:
            self.mean.mul_(0.9).add_(0.1 * values.detach().mean((0, 2, 3)))
        return values - self.mean[:, None, None]


class Replacing(Base):
    """The same, with a new tensor in the buffer's place."""

    def top(self, values: Tensor) -> Tensor:
        values = self.more(values).relu()
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * values.detach().mean((0, 2, 3))
        return values - self.mean[:, None, None]


class Normalised(nn.Module):
    """A batch norm without parameters, so that no name freezes it, between what is frozen and what is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2)
        self.norm = nn.BatchNorm2d(6, affine=False, momentum=0.5)
        self.last = nn.Conv2d(6, 5, 3)
        self.fc = nn.Linear(5, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.last(self.norm(self.stem(images)).relu()).mean((2, 3)))


class Spectral(Base):
    """A weight that is divided by its largest singular value, which each pass comes closer to."""

    def __init__(self) -> None:
        super().__init__()
        nn.utils.parametrizations.spectral_norm(self.more)


@pytest.mark.parametrize("validated", [False, True], ids=["training", "validation"])
@pytest.mark.parametrize("make", [Counting, Spectral, Averaging, Replacing])
def test_what_a_pass_writes_is_written(make: type[Base], validated: bool) -> None:
    agree(make, ["stem"], validation=lambda: Images(8, seed=1) if validated else None)


def test_statistics_that_training_moves_are_those_of_each_validation() -> None:
    """In inference mode nothing changes them while a pass lasts, but they are others in the next epoch."""
    agree(Normalised, ["stem"])


def test_validation_sees_the_statistics_of_its_epoch() -> None:
    agree(Normalised, ["stem"], validation=lambda: Images(8, seed=1))


class EndIn(Callback):
    """A signal while validation is under way, for the n-th time."""

    def __init__(self, count: int) -> None:
        self.left = count

    def on_test_begin(self, logs: Any) -> None:
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGTERM)


def test_statistics_move_too_where_a_fit_goes_on_with_a_validation(tmp_path: Path) -> None:
    options = {"make": Normalised, "freeze_layers": ["stem"], "epochs": 4}
    whole = fitted("last stage", "always", Images(24), Images(8, seed=1), **options)
    options["run"] = tmp_path / "run"
    with pytest.raises(SystemExit):
        fitted("last stage", "always", Images(24), Images(8, seed=1), callbacks=[EndIn(1)], **options)
    resumed = fitted("last stage", "always", Images(24), Images(8, seed=1), **options)
    assert numbers(resumed) == numbers(whole)


# --- what Python does between the tensors -------------------------------------------------------------------------


class Skipping(Base):
    """Leaves a layer out now and then, by Python's generator."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[float] = []

    def top(self, values: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return self.more(values).relu()
        self.drawn.append(random.random())
        return self.more(values).relu() if self.drawn[-1] > 0.1 else values


@pytest.mark.parametrize("use", ["never", "always"])
def test_layers_left_out_by_pythons_generator_are_drawn_in_each_step(use: str) -> None:
    tuner = fitted("last stage", use, Images(24), make=Skipping, freeze_layers=["stem"])
    assert len(set(tuner.model.trunk.module.drawn)) >= 18  # type: ignore[union-attr]


class Scheduled(Base):
    """A number of Python's that a callback sets."""

    def __init__(self) -> None:
        super().__init__()
        self.share, self.drop = 0.0, nn.Dropout(0.0)

    def top(self, values: Tensor) -> Tensor:
        return self.drop(self.more(values).relu()) * (1 - self.share)


class Schedule(Callback):
    def __init__(self, **settings: str) -> None:
        self.settings = settings

    def on_epoch_begin(self, epoch: int, logs: Any) -> None:
        module = self.run.model.trunk.module
        for name, owner in self.settings.items():
            setattr(module.get_submodule(owner), name, 0.3 * epoch)  # type: ignore[union-attr, operator]


@pytest.mark.parametrize("settings", [{"share": ""}, {"p": "drop"}], ids=["of the model", "of a dropout"])
def test_numbers_that_a_callback_sets_are_set(settings: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    agree(Scheduled, ["stem"], callbacks=[Schedule(**settings)])
    assert "settings of the model's layers changed" in capsys.readouterr().out


# --- batches and texts ---------------------------------------------------------------------------------------------


class Centred(Convolutional):
    """What a sample gives depends on the others in its batch."""

    def forward(self, images: Tensor) -> Tensor:
        below = self.middle(self.stem(images))
        return self.fc(self.last(below - below.mean(0)).mean((2, 3)))


@pytest.mark.parametrize("frozen", [["stem", "middle"], ["stem", "middle", "last"]], ids=["stage", "head"])
@pytest.mark.parametrize("size", [2, 3])
def test_layers_that_look_at_the_whole_batch_are_found(frozen: list[str], size: int) -> None:
    agree(Centred, frozen, batch_size=size)


class Unmasked(nn.Module):
    """A convolution over words that sees the padding behind a text."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(90, 8)
        self.layer = nn.Sequential(nn.Linear(8, 128), nn.ReLU(), nn.Linear(128, 4))
        self.last = nn.Conv1d(4, 6, 2, padding=1)
        self.fc = nn.Linear(6, 3)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.fc(self.last(self.layer(self.words(inputs["input_ids"])).mT).relu().amax(2))


class Averaged(nn.Module):
    """The mean over all places of a batch's longest text: a frozen answer that padding moves."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(90, 8)
        self.layer = nn.Sequential(nn.Linear(8, 128), nn.ReLU(), nn.Linear(128, 4))
        self.last = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
        self.fc = nn.Linear(8, 3)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.fc(self.last(self.layer(self.words(inputs["input_ids"])).mean(1)))


class Left(Texts):
    """Padding comes first, as generative models like it."""

    def collate(self, samples: Any) -> tuple[dict[str, Tensor], Tensor]:
        inputs, targets = super().collate(samples)
        places = torch.argsort(inputs["attention_mask"], dim=1, stable=True)
        return {name: rows.gather(1, places) for name, rows in inputs.items()}, targets


class Eights(Texts):
    """Padded to a multiple of eight tokens."""

    def collate(self, samples: Any) -> tuple[dict[str, Tensor], Tensor]:
        inputs, targets = super().collate(samples)
        missing = -inputs["input_ids"].shape[1] % 8
        return {name: functional.pad(rows, (0, missing)) for name, rows in inputs.items()}, targets


class Short(Texts):
    """Cut off where a batch is made, though `lengths` knows of more."""

    def collate(self, samples: Any) -> tuple[dict[str, Tensor], Tensor]:
        return super().collate([(words[:6], target) for words, target in samples])


@pytest.mark.parametrize(
    ("make", "data"),
    [
        (Words, Texts),
        (Unmasked, Texts),
        (Words, Eights),
        (Words, Short),
    ],
    ids=["as usual", "padding that is read", "padding to a multiple", "cut off"],
)
def test_tokens_are_where_they_were(make: type[nn.Module], data: type[Texts]) -> None:
    agree(make, ["words", "layer"], data=data, samples=23, batch_size=4)


@pytest.mark.parametrize("frozen", [["words", "layer"], ["words", "layer", "last"]], ids=["stage", "head"])
def test_frozen_layers_that_read_padding_are_found(frozen: list[str]) -> None:
    """What they give for a text is another number in each batch, so it cannot be stored."""
    agree(Averaged, frozen, data=Texts, samples=23, batch_size=4)


def test_padding_before_a_text_does_not_make_another_model() -> None:
    agree(Words, ["words", "layer"], data=Left, samples=23, batch_size=4)


def test_a_first_batch_of_single_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever becomes of it, it is trained. Now: not stored, because one token is traced as a fixed number."""
    agree(Words, ["words", "layer"], data=lambda count: Texts(count, shortest=1, longest=1))


class Named(Images):
    """Images and their colours under names."""

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image, target = super().__getitem__(index)
        return {"image": image, "colour": image.mean((1, 2))}, target


class Coloured(nn.Module):
    """Reads both, one of them above the boundary."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last, self.beside = nn.Conv2d(3, 6, 3, stride=2), nn.Conv2d(6, 6, 3), nn.Linear(3, 6)
        self.fc = nn.Linear(6, 3)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        above = self.last(self.stem(inputs["image"]).relu()).relu().mean((2, 3))
        return self.fc(above + self.beside(inputs["colour"]))


def test_images_under_a_name_are_trained() -> None:
    """Now: not stored, because the second size of whatever comes in a mapping is taken for a number of tokens."""
    agree(Coloured, ["stem"], data=Named)
    agree(Coloured, ["stem", "last", "beside"], data=Named)


def test_numbers_of_another_precision() -> None:
    class Doubled(Base):
        def __init__(self) -> None:
            super().__init__()
            self.double()

    agree(Doubled, ["stem"])


# --- hooks, messages and lists ------------------------------------------------------------------------------------


class Watch(Callback):
    """Counts calls of a hook on a layer of the body."""

    def __init__(self, layer: str, kind: str) -> None:
        self.layer, self.kind, self.calls = layer, kind, 0

    def on_train_begin(self, logs: Any) -> None:
        getattr(self.run.model.get_submodule(self.layer), self.kind)(self._count)

    def _count(self, *_: Any) -> None:
        self.calls += 1


STEM, MORE = "trunk.module.stem", "trunk.module.more"
HOOKS = [
    (MORE, "register_forward_hook", ["stem"]),
    (MORE, "register_forward_pre_hook", ["stem"]),
    (MORE, "register_full_backward_hook", ["stem"]),
    (MORE, "register_full_backward_pre_hook", ["stem"]),
    (STEM, "register_forward_hook", ["stem", "last", "more"]),
]


@pytest.mark.parametrize("number", range(len(HOOKS)))
@pytest.mark.parametrize("use", ["never", "always"])
def test_hooks_are_called_in_every_pass(use: str, number: int) -> None:
    layer, kind, frozen = HOOKS[number]
    watch = Watch(layer, kind)
    fitted("last stage", use, Images(24), make=Base, freeze_layers=frozen, callbacks=[watch])
    assert watch.calls >= 18


@pytest.mark.parametrize("use", ["never", "always"])
def test_hooks_of_all_modules_are_called_in_every_pass(use: str) -> None:
    calls = []
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, *_: calls.append(type(module)) if module.training else None
    )
    try:
        fitted("last stage", use, Images(24))
    finally:
        handle.remove()
    assert calls.count(nn.Dropout) >= 18


def test_a_first_layer_that_is_trained_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    fitted("last stage", "always", Images(24), freeze_layers=["last"])
    assert "its first layers are trained" in capsys.readouterr().out


class Blown(Base):
    """NaN comes of a trained layer in the middle as soon as its weight is huge."""

    def top(self, values: Tensor) -> Tensor:
        return self.more(values.pow(4)).relu()


class Sabotage(Callback):
    def on_epoch_begin(self, epoch: int, logs: Any) -> None:
        if epoch == 1:
            with torch.no_grad():
                self.run.model.trunk.module.last.weight.fill_(1e15)  # type: ignore[attr-defined]


@pytest.mark.parametrize("use", ["never", "always"])
def test_the_layer_that_gives_nan_is_named(use: str) -> None:
    with pytest.raises(NonFiniteError, match="the first layer to give NaN or infinity is more"):
        fitted("last stage", use, Images(24), make=Blown, freeze_layers=["stem"], callbacks=[Sabotage()])


class Broken(Images):
    """Two samples in two hundred are no images."""

    on_bad = "skip"

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index in (13, 77):
            raise UnreadableSampleError(f"{index} is broken")
        return super().__getitem__(index)


@pytest.mark.parametrize("use", ["never", "always"])
def test_a_solved_head_lists_the_samples_that_cannot_be_read(use: str, tmp_path: Path) -> None:
    tuner: Finetuner
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkippedSamplesWarning)
        tuner = fitted("head", use, Broken(200), strategy="head", freeze_layers=[], batch_size=20, run=tmp_path / "run")
    assert len(tuner.history) == 3
    listed = (tmp_path / "run" / "skipped.jsonl").read_text() if (tmp_path / "run" / "skipped.jsonl").exists() else ""
    assert "13 is broken" in listed and "77 is broken" in listed


def test_what_agrees_is_not_always_the_same() -> None:
    """The measure of this file can tell two fits apart."""
    one, other = (fitted("last stage", "never", Images(24), learning_rate=rate) for rate in (0.05, 0.0501))
    assert gap(one, other) > 1e-6 and digests(one) != digests(other) and numbers(one) != numbers(other)
