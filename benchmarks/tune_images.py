"""Ten epochs on 1,000 image files with most of a network frozen: Lightning, fastai, Keras on torch, and neurenix.

    python benchmarks/tune_images.py efficientnet-lite0 head       (or: last_stage)
    python benchmarks/tune_images.py resnet50 head

All read the same files with the same transform, batch size, rates and two data workers. The limit is one reading of the
files, one pass of the frozen layers by the best backend, and the steps of what is trained on tensors in memory.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from typing import Any

from _images import Network, accuracy, datasets, load, loaders, statistics_of
from _race import race

EPOCHS = int(os.environ.get("NEURENIX_BENCH_EPOCHS", 10))
LAST_STAGE = {"efficientnet-lite0": "blocks.6", "resnet50": "layer4"}
BODY_RATE, HEAD_RATE = 1e-4, 1e-3


def network_of(name: str, part: str) -> Network:
    trained = {"efficientnet-lite0": ("blocks.6", "conv_head", "bn2"), "resnet50": ("layer4",)}[name]
    return Network(name, trained if part == "last_stage" else None)


def ours(name: str, part: str, **options: Any) -> dict[str, float]:
    from neurenix.transfer import Finetuner

    model, (train, test) = load(name), datasets(*statistics_of(name))
    frozen = {"strategy": "head"} if part == "head" else {"freeze_layers": below(model, LAST_STAGE[name])}
    started = time.perf_counter()
    tuner = Finetuner(model, 8, schedule="constant", warmup=0, weight_decay=0.0, **frozen, **options)
    tuner.fit(train, epochs=EPOCHS, num_workers=2, run=False)
    seconds = time.perf_counter() - started
    first = tuner.history["seconds"][0]
    return {"seconds": seconds, "accuracy": tuner.evaluate(test)["accuracy"], "first_epoch": first}


def below(model: Any, stage: str) -> list[str]:
    """The stages of a model before one of them."""
    return list(model.stages[: model.stages.index(stage)])


def lightning(name: str, part: str, precision: str) -> dict[str, float]:
    import lightning
    import torch
    from torch.nn import functional

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = network_of(name, part)

        def on_train_epoch_start(self) -> None:
            self.network.set_modes()

        def training_step(self, batch: Any, place: int) -> torch.Tensor:
            return functional.cross_entropy(self.network(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.network.groups(BODY_RATE, HEAD_RATE))

    module, (train, test) = Module(), loaders(name)
    started = time.perf_counter()
    trainer = lightning.Trainer(
        max_epochs=EPOCHS,
        precision=precision,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, train)
    return {"seconds": time.perf_counter() - started, "accuracy": accuracy(module.network, test)}


def fastai(name: str, part: str, bf16: bool) -> dict[str, float]:
    import torch
    from fastai.callback.core import Callback
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from torch.nn import functional

    class Modes(Callback):
        def before_train(self) -> None:
            self.learn.model.set_modes()

        def before_batch(self) -> None:
            self.context = torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16)
            self.context.__enter__()

        def after_loss(self) -> None:
            self.context.__exit__(None, None, None)

    network, (train, test) = network_of(name, part), loaders(name)

    def optimizer(parameters: Any, lr: float, **_: Any) -> Any:
        from fastai.optimizer import OptimWrapper

        return OptimWrapper(opt=torch.optim.Adam(network.groups(BODY_RATE, HEAD_RATE)))

    started = time.perf_counter()
    learner = Learner(
        DataLoaders(train, test, device="cpu"), network, functional.cross_entropy, opt_func=optimizer, cbs=[Modes()]
    )
    learner.dls.valid = []
    with learner.no_bar(), learner.no_logging():
        learner.fit(EPOCHS)
    return {"seconds": time.perf_counter() - started, "accuracy": accuracy(network, test)}


def keras(name: str, part: str, bf16: bool) -> dict[str, float]:
    os.environ["KERAS_BACKEND"] = "torch"
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import keras
    import torch
    from keras.layers import TorchModuleWrapper

    if bf16:
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    network, (train, test) = network_of(name, part), loaders(name)
    network.set_modes()
    network.train = lambda mode=True: network  # Keras sets the mode of all layers alike, which moves frozen statistics

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.network = TorchModuleWrapper(network)

        def call(self, images: Any) -> Any:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                return self.network(images)

    started = time.perf_counter()
    model = Model()
    model.compile(
        optimizer=keras.optimizers.Adam(HEAD_RATE if part == "head" else BODY_RATE),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(train, epochs=EPOCHS, verbose=0)
    seconds = time.perf_counter() - started
    del network.train
    return {"seconds": seconds, "accuracy": accuracy(network, test)}


def main() -> None:
    warnings.simplefilter("ignore")
    name = os.environ.setdefault(
        "NEURENIX_BENCH_NETWORK",
        sys.argv.pop(1) if len(sys.argv) > 1 and sys.argv[1] in LAST_STAGE else "efficientnet-lite0",
    )
    parts = ("head", "last_stage")
    part = os.environ.setdefault(
        "NEURENIX_BENCH_PART", sys.argv.pop(1) if len(sys.argv) > 1 and sys.argv[1] in parts else "head"
    )
    race(
        f"tune-{name}-{part}",
        f"{name}, {part.replace('_', ' ')} trained, {EPOCHS} epochs on 1,000 image files of 400 px",
        {
            "neurenix": lambda seed: ours(name, part, seed=seed),
            "neurenix, fp32": lambda seed: ours(name, part, seed=seed, precision="fp32"),
            "lightning": lambda seed: lightning(name, part, "32-true"),
            "lightning, bf16": lambda seed: lightning(name, part, "bf16-mixed"),
            "fastai": lambda seed: fastai(name, part, bf16=False),
            "fastai, bf16": lambda seed: fastai(name, part, bf16=True),
            "keras": lambda seed: keras(name, part, bf16=False),
            "keras, bf16": lambda seed: keras(name, part, bf16=True),
        },
        ours="neurenix",
    )


if __name__ == "__main__":
    main()
