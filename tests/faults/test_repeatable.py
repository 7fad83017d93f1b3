"""The same seed gives the same bits, and what only looks leaves everything as it is."""

from __future__ import annotations

import random
import resource
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from tests.faults.children import run
from tests.faults.jobs import Noisy, digest, network
from torch import nn

from neurenix.transfer import FeatureExtractor, Finetuner

RECIPES: dict[str, dict[str, Any]] = {
    "full": {"mixup_alpha": 0.2, "label_smoothing": 0.1},
    "head": {"strategy": "head"},
    "lp_ft": {"strategy": "lp_ft", "ema_decay": 0.9},
    "progressive": {"strategy": "progressive", "optimizer": "adamw", "layer_learning_rates": 0.7},
    "partial": {"freeze_layers": ["0"], "accumulation_steps": 3, "precision": "bf16", "optimizer": "sgd"},
}


def tune(options: dict[str, Any], workers: int = 0) -> Finetuner:
    tuner = Finetuner(network(), 3, **options)
    tuner.fit(Noisy(30), Noisy(9), batch_size=4, epochs=2, num_workers=workers, run=False)
    return tuner


@pytest.mark.parametrize("options", RECIPES.values(), ids=RECIPES)
def test_the_same_seed_gives_the_same_bits(options: dict[str, Any]) -> None:
    first = tune(options)
    torch.manual_seed(1)
    numpy.random.seed(1)  # the caller's generators are nobody's business
    random.seed(1)
    assert digest(tune(options, workers=2)) == digest(first)
    assert digest(tune({**options, "seed": 1})) != digest(first)


def surroundings(tuner: Finetuner) -> list[Any]:
    """Weights, moments, history, modes, which layers learn, and the caller's generators."""
    modules = [(name, module.training) for name, module in tuner.model.named_modules()]
    learns = [(name, parameter.requires_grad) for name, parameter in tuner.model.named_parameters()]
    python, legacy = random.getstate(), numpy.random.get_state()
    draws = [torch.get_rng_state().sum().item(), str(python), str([part for part in legacy])]
    return [digest(tuner), modules, learns, [group["lr"] for group in tuner.optimizer.param_groups], *draws]


def test_what_only_looks_changes_nothing(tmp_path: Path) -> None:
    data = [(image, index % 3) for index, image in enumerate(Noisy(30).images)]
    tuner = Finetuner(network(), 3, freeze_layers=["0"])
    tuner.fit(data, batch_size=8, epochs=1, run=False)
    before = surroundings(tuner)
    looks = {
        "find_lr": lambda: tuner.find_lr(data, batch_size=8, steps=12),
        "evaluate": lambda: tuner.evaluate(data),
        "predict": lambda: tuner.predict(torch.stack([image for image, _ in data])),
        "summary": lambda: str(tuner.summary()),
        "save": lambda: tuner.save(tmp_path / "model"),
        "features": lambda: FeatureExtractor(tuner.model).extract(data, progress=False),
        "resume_check": lambda: tuner.resume_check(data, batch_size=4),
    }
    for name, look in looks.items():
        look()
        assert surroundings(tuner) == before, name


class Hungry(nn.Module):
    """Needs about 100 MiB for each sample."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(8, 8)
        self.fc = nn.Linear(8, 3)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        features = self.body(values).relu()
        room = torch.zeros(len(values), 25 << 20)
        return self.fc(features + room[:, :8])


def tune_in_little_memory(answer: Path) -> None:
    """A limit of the operating system, met in the middle of a forward pass."""
    values = torch.randn(24, 8, generator=torch.Generator().manual_seed(0))
    data = [(value, index % 3) for index, value in enumerate(values)]
    roomy = Finetuner(Hungry(), None, learning_rate=0.01, precision="fp32")
    roomy.fit(data, batch_size=2, epochs=1, run=False)  # loads everything that a fit needs
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (700 << 20), resource.RLIM_INFINITY))
    tuner = Finetuner(Hungry(), None, learning_rate=0.01, precision="fp32")
    tuner.fit(data, batch_size=12, epochs=1, run=answer.parent / "run")
    answer.write_text((answer.parent / "run" / "run.json").read_text())


def test_a_limit_of_the_operating_system_is_no_end(tmp_path: Path) -> None:
    process = run(tune_in_little_memory, tmp_path / "answer")
    process.join(60)
    assert process.exitcode == 0
    assert '"finished"' in (tmp_path / "answer").read_text()
