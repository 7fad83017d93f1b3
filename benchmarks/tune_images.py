"""Ten epochs on 1,000 image files: Lightning, fastai, Keras on torch, and neurenix.

    python benchmarks/tune_images.py                       two networks, of each the head, the last stage too, or all
    python benchmarks/tune_images.py resnet50 last_stage   the one named; also: efficientnet-lite0, head, augmented_head
                                                           (each epoch's images are new, nothing is stored), all_layers

All read the same files with the same transform, batch size, rates and two data workers. Where layers are frozen there
is a limit: one reading of the files, one pass of the frozen layers by the best backend, and the steps of what is
trained on tensors in memory.

There are peers in bf16 only where the processor multiplies bf16: elsewhere it is emulated, and slower than fp32. Where
neurenix by itself takes fewer digits than fp32's, for frozen layers at least, it has a contestant in fp32 too.

NEURENIX_BENCH_PEER_IMAGES, NEURENIX_BENCH_PEER_EPOCHS: what the peers run, where the whole job would take too long; see
_image_peers.py. NEURENIX_BENCH_OURS_EPOCHS: after how many epochs ours, and the limit, stop where more than the head is
trained; the epochs after the first are alike, so their median stands for those that are left out. For trials:
NEURENIX_BENCH_FILES and NEURENIX_BENCH_EPOCHS make the job smaller, with which the best backend may be another one.
"""

from __future__ import annotations

import os
import statistics
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from _device import DEVICE, multiplies_bfloat16, now
from _image_peers import AUGMENTED, BODY_RATE, HEAD_RATE, fastai, keras, lightning
from _images import (
    COUNT,
    EPOCHS,
    PEER_EPOCHS,
    PEER_IMAGES,
    accuracy,
    datasets,
    import_all,
    load,
    loaders,
    statistics_of,
)
from _race import race
from torch import Tensor, nn
from torch.nn import functional

from neurenix.backends import BACKENDS, Forward, eager, fast_forward, named
from neurenix.callbacks import Callback
from neurenix.devices import autocast, is_exact, resolve_precision

NETWORKS, PARTS = ("efficientnet-lite0", "resnet50"), ("head", AUGMENTED, "last_stage", "all_layers")
STRATEGY = {"head": "head", AUGMENTED: "head", "all_layers": "full"}
LAST_STAGE = {"efficientnet-lite0": "blocks.6", "resnet50": "layer4"}
OURS_EPOCHS = int(os.environ.get("NEURENIX_BENCH_OURS_EPOCHS", EPOCHS))
BATCH = 32
Figures = dict[str, float]


def ours(name: str, part: str, **options: Any) -> Figures:
    from neurenix.transfer import Finetuner

    import_all()
    model, (train, test) = load(name), datasets(*statistics_of(name), part == AUGMENTED)
    frozen = {"freeze_layers": below(model, LAST_STAGE[name])} if part == "last_stage" else {"strategy": STRATEGY[part]}
    epochs = epochs_run(part)
    started = now()
    tuner = Finetuner(model, 8, schedule="constant", warmup=0, weight_decay=0.0, **frozen, **options)
    tuner.fit(train, epochs=EPOCHS, num_workers=2, run=False, callbacks=[EndAfter(epochs)] if epochs < EPOCHS else [])
    seconds = now() - started
    each = tuner.history["seconds"]
    figures = {"first_epoch": each[0], "later_epoch": statistics.median(each[1:] or each)}
    return whole(seconds, each, lambda: tuner.evaluate(test)["accuracy"]) | figures


class EndAfter(Callback):
    """Ends a fit that has decided everything as for all its epochs."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_epoch_end(self, epoch: int, logs: Any) -> None:
        if epoch + 1 == self.epochs:
            self.run.stop("the other epochs are like these")


def limit(name: str, part: str) -> Figures:
    import_all()
    precision = resolve_precision("auto", DEVICE)
    model, train = load(name), datasets(*statistics_of(name))[0]
    example = torch.stack([train[place][0] for place in range(BATCH)]).to(DEVICE)
    prefix, suffix = halves(model, part, below(model, LAST_STAGE[name]), example)
    backend = best_backend(prefix, example, precision)
    marks = [now()]
    images, classes = read(train)
    marks.append(now())
    forward = built(backend, prefix, example, precision)
    marks.append(now())
    rows, classes = passed(forward, images), classes.to(DEVICE)
    marks.append(now())
    each = steps(suffix, rows, classes, precision, epochs_run(part))
    seconds = now() - marks[0]
    parts = dict(zip(("read", "build", "prefix"), (marks[i + 1] - marks[i] for i in range(3)), strict=True))
    figures = whole(seconds, each, lambda: accuracy(model, loaders(name)[1]))
    return {**figures, **parts, "steps": figures["seconds"] - sum(parts.values())}


def halves(model: Any, part: str, stages: list[str], example: Tensor) -> tuple[nn.Module, nn.Module]:
    """What is frozen, and what is trained. stages: the frozen ones, where more than the head is trained."""
    from neurenix.training import Phase, apply_phase, expanded
    from neurenix.training.freezing import set_training_mode
    from neurenix.training.prefix import split

    torch.manual_seed(0)
    model.replace_head(nn.Linear(model.feature_size, 8))
    phase = Phase("limit", ("trunk",) if part == "head" else expanded(model, stages))
    apply_phase(model, phase)
    set_training_mode(model, phase)
    parts = split(model, example[:4])
    return parts.prefix, parts.suffix


def best_backend(prefix: nn.Module, example: Tensor, precision: str) -> str:
    """The one that neurenix takes; to find it out is not a part of the limit."""
    said: list[str] = []
    exact = is_exact("auto", DEVICE)
    fast_forward(prefix, example, samples=COUNT, precision=precision, exact=exact, say=said.append)
    taken = [name for name in BACKENDS for message in said if message.startswith(f"forward passes by {name},")]
    return taken[0] if taken else "eager"


def built(backend: str, prefix: nn.Module, example: Tensor, precision: str) -> Forward:
    return (
        eager(prefix, DEVICE, precision) if backend == "eager" else BACKENDS[backend].build(prefix, example, precision)
    )


def read(dataset: Any) -> tuple[Tensor, Tensor]:
    """All images and classes of a dataset, by two workers."""
    batches = list(torch.utils.data.DataLoader(dataset, batch_size=BATCH, num_workers=2))
    return torch.cat([images for images, _ in batches]), torch.cat([classes for _, classes in batches])


def passed(forward: Forward, images: Tensor) -> Mapping[str, Tensor]:
    """What the frozen layers give for all images."""
    parts = [named(forward(batch.to(DEVICE))) for batch in images.split(BATCH)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def steps(suffix: Any, rows: Mapping[str, Tensor], classes: Tensor, precision: str, epochs: int) -> list[float]:
    """Train on rows in memory; seconds of each epoch."""
    body = [parameter for parameter in suffix.trunk.parameters() if parameter.requires_grad]
    groups = [{"params": body, "lr": BODY_RATE}] * bool(body) + [{"params": suffix.head.parameters(), "lr": HEAD_RATE}]
    optimizer, each = torch.optim.Adam(groups, fused=True), []
    for _ in range(epochs):
        started = now()
        for places in torch.randperm(len(classes), device=DEVICE).split(BATCH):
            optimizer.zero_grad()
            with autocast(DEVICE, precision):
                outputs = suffix({name: tensor[places] for name, tensor in rows.items()})
            functional.cross_entropy(outputs, classes[places]).backward()
            optimizer.step()
        each.append(now() - started)
    return each


def below(model: Any, stage: str) -> list[str]:
    """The stages of a model before one of them."""
    return list(model.stages[: model.stages.index(stage)])


def epochs_run(part: str) -> int:
    """Epochs that ours makes. Those of a head alone are short, and always made."""
    return min(EPOCHS, max(2, OURS_EPOCHS)) if part in ("last_stage", "all_layers") else EPOCHS


def whole(seconds: float, epochs: list[float], quality: Callable[[], float]) -> Figures:
    """The figures of a job whose first epochs were run; accuracy only where all were."""
    if len(epochs) == EPOCHS:
        return {"seconds": seconds, "accuracy": quality()}
    later = epochs[1:]
    return {"seconds": seconds - sum(later) + (EPOCHS - 1) * statistics.median(later), "measured_seconds": seconds}


def contestants(name: str, part: str) -> dict[str, Callable[[int], Figures]]:
    halved = multiplies_bfloat16()
    found: dict[str, Callable[[int], Figures]] = {
        "neurenix": lambda seed: ours(name, part, seed=seed),
    }
    if part in ("head", "last_stage"):
        found["limit"] = lambda seed: limit(name, part)
    if not is_exact("auto", DEVICE):
        found["neurenix, fp32"] = lambda seed: ours(name, part, seed=seed, precision="fp32")
    for label, peer in {"lightning": lightning, "fastai": fastai, "keras": keras}.items():
        found[label] = lambda seed, peer=peer: peer(name, part, seed)
        if halved:
            found[f"{label}, bf16"] = lambda seed, peer=peer: peer(name, part, seed, bf16=True)
    return found


def note(part: str) -> str:
    """What was not run in full."""
    told = []
    if (PEER_IMAGES, PEER_EPOCHS) != (COUNT, EPOCHS):
        ran = f"{PEER_EPOCHS} epoch{'s' * (PEER_EPOCHS > 1)} of {PEER_IMAGES:,} images"
        told.append(f"Lightning, fastai and Keras ran {ran}, and their seconds are scaled to the whole.")
    if epochs_run(part) < EPOCHS:
        who = "neurenix" if part == "all_layers" else "neurenix and the limit"
        told.append(f"{who} ran {epochs_run(part)} epochs; a later one's median stands for the rest.")
    return " ".join(told)


def named_or_all(choices: tuple[str, ...]) -> tuple[str, ...]:
    """The choice that the command line begins with, taken from it, or all."""
    return (sys.argv.pop(1),) if len(sys.argv) > 1 and sys.argv[1] in choices else choices


def main() -> None:
    warnings.simplefilter("ignore")
    networks, parts = named_or_all(NETWORKS), named_or_all(PARTS)
    for name in networks:
        for part in parts:
            race(
                f"tune-{name}-{part}",
                f"{name}, {part.replace('_', ' ')} trained, {EPOCHS} epochs on {COUNT:,} image files of 400 px",
                contestants(name, part),
                ours="neurenix",
                timeout=6 * 3600,
                arguments=(name, part),
                note=note(part),
            )


if __name__ == "__main__":
    main()
