"""skada's own toy problems by skada's deep methods and by the same methods here: one network, rate, batch size.

    python benchmarks/adapt_toys.py

Four shifts of two classes in the plane (skada.datasets.make_shifted_datasets), 640 labelled points of the source and
640 of the target without labels; a hidden layer of 10 units with dropout (skada.deep.modules.ToyModule2D); Adam at
0.01, batches of 32 of each domain, 30 epochs in all, of which here a third is on the source alone. MDD's features feel
the whole of its reversed gradient, as in skada; here a tenth is the default, as its authors have it. The columns of
methods are accuracies on the target, means over the four shifts; `accuracy` is the mean of them. By default an epoch
is chosen without labels here, which can be the model from before; skada ends with the last one, and so does the
contestant beside ours.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from _race import race
from torch import nn

SHIFTS = ("covariate_shift", "target_shift", "conditional_shift", "subspace")
METHODS = ("deep_coral", "dan", "dann", "cdan", "mdd", "mcc")
POINTS, HIDDEN, RATE, BATCH, EPOCHS = 80, 10, 0.01, 32, 30  # points: in each of eight clouds
ALIKE: dict[str, Any] = {"learning_rate": RATE, "precision": "fp32"}  # skada computes in it

Domain = tuple[np.ndarray, np.ndarray]
Solve = Callable[[str, Domain, np.ndarray, int], np.ndarray]


def problem(shift: str, seed: int) -> tuple[Domain, Domain]:
    """Source and target: points (n, 2) float32 and classes (n,)."""
    from skada.datasets import make_shifted_datasets

    points, classes, domains = make_shifted_datasets(POINTS, POINTS, shift, noise=0.1, random_state=seed)
    points, classes = points.astype(np.float32), classes.astype(np.int64)
    source, target = domains >= 0, domains < 0
    return (points[source], classes[source]), (points[target], classes[target])


def all_of_them(solve: Solve, seed: int) -> Mapping[str, float]:
    """Every method on every shift. solve: (method, source, target's points, seed) -> the target's classes."""
    problems = {shift: problem(shift, seed) for shift in SHIFTS}
    solve("deep_coral", *_few(problems["subspace"]), seed)  # what is imported when it is first needed
    started, right = time.perf_counter(), dict[str, list[float]]()
    for method in METHODS:
        for source, (points, classes) in problems.values():
            right.setdefault(method, []).append(float((solve(method, source, points, seed) == classes).mean()))
    seconds = time.perf_counter() - started
    found = {method: statistics.mean(values) for method, values in right.items()}
    return {"seconds": seconds, "accuracy": statistics.mean(found.values()), **found}


def _few(given: tuple[Domain, Domain]) -> tuple[Domain, np.ndarray]:
    (points, classes), (others, _) = given
    return (points[::8], classes[::8]), others[::8]


def toy(seed: int) -> nn.Module:
    """What ToyModule2D is, cut where its head begins."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Sequential(nn.Linear(2, HIDDEN), nn.ReLU(), nn.Dropout(0.5)), nn.Linear(HIDDEN, 2))


def ours(chooses: bool) -> Solve:
    """By DomainAdapter."""

    def solve(method: str, source: Domain, target: np.ndarray, seed: int) -> np.ndarray:
        from neurenix.transfer import DomainAdapter
        from neurenix.transfer.adaptation.methods import MDD

        options: dict[str, Any] = {"weight_decay": 0.0, "schedule": "constant", "warmup": 0, **ALIKE}
        settings = MDD(reversal=1.0) if method == "mdd" else method
        adapter = DomainAdapter(
            toy(seed), 2, method=settings, head_hidden_sizes=(), chooses=chooses, seed=seed, clip_norm=None, **options
        )
        data = tuple(torch.from_numpy(part) for part in source)
        unlabelled, before = torch.from_numpy(target), EPOCHS // 3
        adapter.fit(data, unlabelled, None, BATCH, EPOCHS - before, before, run=False)
        return np.asarray(adapter.predict(unlabelled))

    return solve


def source_only(method: str, source: Domain, target: np.ndarray, seed: int) -> np.ndarray:
    """The same network without adaptation, whatever the method."""
    from neurenix.transfer import Finetuner

    tuner = Finetuner(toy(seed), 2, weight_decay=0.0, schedule="constant", warmup=0, seed=seed, **ALIKE)
    tuner.fit(tuple(torch.from_numpy(part) for part in source), epochs=EPOCHS, batch_size=BATCH, run=False)
    return np.asarray(tuner.predict(torch.from_numpy(target)))


def by_skada(method: str, source: Domain, target: np.ndarray, seed: int) -> np.ndarray:
    """By skada.deep."""
    from skada import deep
    from skada.deep.modules import ToyModule2D
    from skada.utils import source_target_merge

    torch.manual_seed(seed)
    sizes: dict[str, dict[str, int]] = {
        "dann": {"num_features": HIDDEN},
        "cdan": {"num_features": HIDDEN, "n_classes": 2},
        "mdd": {"num_features": HIDDEN, "n_classes": 2},
    }
    make = {
        "deep_coral": deep.DeepCoral,
        "dan": deep.DAN,
        "dann": deep.DANN,
        "cdan": deep.CDAN,
        "mdd": deep.MDD,
        "mcc": deep.MCC,
    }
    net = make[method](
        ToyModule2D(n_classes=2, num_features=HIDDEN),
        layer_name="dropout",
        batch_size=BATCH,
        max_epochs=EPOCHS,
        optimizer=torch.optim.Adam,
        lr=RATE,
        train_split=None,
        verbose=0,
        **sizes.get(method, {}),
    )
    points, domains = source_target_merge(source[0], target)
    classes = np.concatenate([source[1], np.full(len(target), -1)])
    net.fit(points.astype(np.float32), classes, domains)
    return np.asarray(net.predict(target, np.full(len(target), -2), allow_source=True))


def main() -> None:
    warnings.simplefilter("ignore")
    contestants: dict[str, Callable[[int], Mapping[str, float]]] = {
        "neurenix": lambda seed: all_of_them(ours(True), seed),
        "neurenix, last epoch": lambda seed: all_of_them(ours(False), seed),
        "skada": lambda seed: all_of_them(by_skada, seed),
        "source only": lambda seed: all_of_them(source_only, seed),
    }
    title = f"skada's four toy shifts by six methods, {EPOCHS} epochs on {8 * POINTS} points of each domain"
    race("adapt-toys", title, contestants, ours="neurenix")


if __name__ == "__main__":
    main()
