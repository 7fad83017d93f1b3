"""Samples that are new in every epoch: the frozen layers run by a backend, and the fit learns what it would without."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.devices import DEVICE
from tests.unit.prefix.fits import (
    Convolutional,
    Cut,
    CutAfter,
    Flickering,
    Images,
    digests,
    fitted,
    gap,
    numbers,
    seeded,
)
from torch import Tensor, nn

from neurenix.backends import Forward, Inputs, eager
from neurenix.callbacks import Callback
from neurenix.training.prefix import live
from neurenix.transfer import DomainAdapter
from neurenix.transfer.adaptation import methods


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Samples that each pass of the frozen layers had; eager torch stands for a backend that is faster."""
    seen: list[int] = []

    def fastest(prefix: nn.Module, example: Inputs, *, precision: str, **_: Any) -> Forward:
        run = eager(prefix, DEVICE, precision)

        def forward(inputs: Inputs) -> Any:
            assert isinstance(inputs, Tensor)
            seen.append(len(inputs))
            return run(inputs)

        return forward

    monkeypatch.setattr(live, "fast_forward", fastest)
    return seen


@pytest.mark.parametrize("name", ["last stage", "head", "skip", "vit"])
@pytest.mark.parametrize(
    ("data", "options"),
    [(Flickering, {}), (Images, {"mixup_alpha": 0.4}), (Flickering, {"accumulation_steps": 2})],
    ids=["augmented", "mixed", "accumulated"],
)
def test_the_fit_is_the_same(
    name: str, data: Callable[[int], Images], options: dict[str, Any], passes: list[int]
) -> None:
    fast = fitted(name, "always", data(22), Images(8, seed=1), **options)
    assert sum(passes) == 3 * 22 and passes[:6] == [4, 4, 4, 4, 4, 2]
    whole = fitted(name, "never", data(22), Images(8, seed=1), **options)
    assert gap(fast, whole) < 1e-5
    assert whole.history["loss"][0] != whole.history["loss"][-1]


def test_one_epoch_is_enough(passes: list[int]) -> None:
    fast = fitted("head", "auto", Images(24), epochs=1)
    assert len(passes) == 6 and gap(fast, fitted("head", "never", Images(24), epochs=1)) < 1e-5


def test_what_is_stored_needs_no_backend_for_each_pass(passes: list[int]) -> None:
    fitted("head", "auto", Images(24))
    fitted("head", "auto", Flickering(24), augmented_views=2)
    assert not passes


def test_never_is_never(passes: list[int]) -> None:
    fitted("head", "never", Flickering(24))
    assert not passes


def test_too_little_work_is_not_worth_a_trace(
    passes: list[int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fitted("last stage", "auto", Flickering(24))
    assert not passes and "eager" not in capsys.readouterr().out
    monkeypatch.setattr(live, "_SECONDS", 0.0)
    fitted("last stage", "auto", Flickering(24))
    assert passes


def test_by_a_real_backend() -> None:
    fast = fitted("last stage", "always", Flickering(24), backend="openvino")
    assert 0.0 < gap(fast, fitted("last stage", "never", Flickering(24), backend="openvino")) < 1e-4


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path, home: Path) -> None:
    options: dict[str, Any] = {"backend": "openvino_int8", "precision": "auto", "checkpoint_every": 1}
    whole = fitted("last stage", "always", Flickering(24), run=tmp_path / "whole", **options)
    for cut in (3, 8):
        with pytest.raises(Cut):
            fitted("last stage", "always", Flickering(24), run=tmp_path / "cut", callbacks=[CutAfter(cut)], **options)
        shutil.rmtree(home, ignore_errors=True)
    resumed = fitted("last stage", "always", Flickering(24), run=tmp_path / "cut", **options)
    assert digests(resumed) == digests(whole) and numbers(resumed) == numbers(whole)


class Hooked(Convolutional):
    """A frozen layer that somebody looks into."""

    def __init__(self) -> None:
        super().__init__()
        self.stem.register_forward_hook(lambda *_: None)


def test_what_cannot_be_cut_is_run_as_it_is_and_why_is_told(
    passes: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    fitted("last stage", "always", Flickering(24), make=Hooked)
    assert not passes and "the frozen layers run by eager torch: " in capsys.readouterr().out


class Meddling(Callback):
    """Changes a setting of a frozen layer after the first epoch."""

    def on_epoch_end(self, epoch: int, logs: Any) -> None:
        next(part for part in self.run.model.modules() if isinstance(part, nn.BatchNorm2d)).eps = 0.5


def test_a_changed_layer_is_seen(passes: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    fast = fitted("last stage", "always", Flickering(24), callbacks=[Meddling()])
    assert len(passes) == 6 and "from now on" in capsys.readouterr().out
    assert gap(fast, fitted("last stage", "never", Flickering(24), callbacks=[Meddling()])) < 1e-5


def test_gradients_of_the_samples_come_from_the_whole_model() -> None:
    model = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Linear(5, 3)))
    module = live.WithFastFrozenLayers(model, lambda inputs: 1 / 0, nn.Identity(), lambda maps: maps)  # type: ignore[arg-type]
    images = torch.ones(2, 3, 2, 2, device=DEVICE, requires_grad=True)
    module(images).sum().backward()
    assert images.grad is not None and bool(images.grad.any())


def adapted(use: str, method: Any, norms: str) -> DomainAdapter:
    settings: dict[str, Any] = {"learning_rate": 0.05, "optimizer": "sgd", "precision": "fp32", "backend": "eager"}
    model = fitted("last stage", "never", Images(24), epochs=1)
    adapter = DomainAdapter(
        model.model, 3, method=method, norms=norms, freeze_layers=["stem", "middle"], frozen_prefix=use, **settings
    )
    source, target = Images(24), Images(24, seed=2)
    adapter.fit((source.images, torch.tensor(source.targets)), target.images, None, 8, 2, 0, run=False)
    return adapter


@pytest.mark.parametrize("method", ["contrastive", "rotation", "fixmatch", "masked_reconstruction", "adda"])
def test_adaptations_that_read_the_samples(method: str, passes: list[int]) -> None:
    fast = adapted("always", method, "separate")
    assert len(passes) >= 2 * 3 * 2
    assert gap(fast.tuner, adapted("never", method, "separate").tuner) < 1e-4


def test_norms_of_each_domain_stay_in_the_model(passes: list[int]) -> None:
    adapted("always", methods.DANN(), "per_domain")
    assert not passes


def test_batches_of_one_sample_are_run_as_they_are(passes: list[int]) -> None:
    fast = fitted("last stage", "always", Flickering(6), batch_size=1)
    assert not passes and gap(fast, fitted("last stage", "never", Flickering(6), batch_size=1)) == 0.0
