"""The same training by Lightning, fastai and Keras on torch.

Where they run less than the whole job (PEER_IMAGES, PEER_EPOCHS), the seconds from the beginning of the training to its
end are scaled by images and epochs, and those before and after are not. What an epoch costs whatever its length (the
start of two workers, the wait for the first batch) is scaled with the images too: take enough of them.
"""

from __future__ import annotations

import os
from typing import Any

from _device import DEVICE, now
from _images import COUNT, EPOCHS, PEER_EPOCHS, PEER_IMAGES, Network, accuracy, loaders

BODY_RATE, HEAD_RATE = 1e-4, 1e-3
TRAINED = {"efficientnet-lite0": ("blocks.6", "conv_head", "bn2"), "resnet50": ("layer4",)}
ALL = ""  # with which every name begins
AUGMENTED = "augmented_head"  # the part of a network whose training has images that are new in every epoch


def network_of(name: str, part: str, seed: int) -> Network:
    return Network(name, {"head": None, AUGMENTED: None, "last_stage": TRAINED[name], "all_layers": ALL}[part], seed)


class Clock:
    """When a job began, and when the training in it began and ended."""

    def __init__(self) -> None:
        self.started = self.begun = self.ended = now()

    def begin(self, *_: Any) -> None:
        self.begun = now()

    def end(self, *_: Any) -> None:
        self.ended = now()

    def figures(self, network: Network, test: Any) -> dict[str, float]:
        """What a peer tells. The job ends now; accuracy is measured afterwards, of a whole job only."""
        seconds, training = now() - self.started, self.ended - self.begun
        if (PEER_IMAGES, PEER_EPOCHS) == (COUNT, EPOCHS):
            return {"seconds": seconds, "accuracy": accuracy(network, test)}
        whole = training * EPOCHS * COUNT / (PEER_EPOCHS * PEER_IMAGES)
        return {"seconds": seconds - training + whole, "measured_seconds": seconds}


def lightning(name: str, part: str, seed: int, bf16: bool = False) -> dict[str, float]:
    import lightning
    import torch
    from torch.nn import functional

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = network_of(name, part, seed)

        def on_train_start(self) -> None:
            clock.begin()

        def on_train_end(self) -> None:
            clock.end()

        def on_train_epoch_start(self) -> None:
            self.network.set_modes()

        def training_step(self, batch: Any, place: int) -> torch.Tensor:
            return functional.cross_entropy(self.network(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.network.groups(BODY_RATE, HEAD_RATE))

    module, (train, test) = Module(), loaders(name, part == AUGMENTED)
    clock = Clock()
    trainer = lightning.Trainer(
        max_epochs=PEER_EPOCHS,
        precision="bf16-mixed" if bf16 else "32-true",
        accelerator="gpu" if DEVICE.type == "cuda" else "cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, train)
    return clock.figures(module.network, test)


def fastai(name: str, part: str, seed: int, bf16: bool = False) -> dict[str, float]:
    import fastai.callback.progress  # noqa: F401  (brings Learner.no_bar)
    import torch
    from fastai.callback.core import Callback
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.optimizer import OptimWrapper
    from torch.nn import functional

    class Modes(Callback):
        def before_fit(self) -> None:
            clock.begin()

        def after_fit(self) -> None:
            clock.end()

        def before_train(self) -> None:
            self.learn.model.set_modes()

        def before_batch(self) -> None:
            self.context = torch.autocast(DEVICE.type, dtype=torch.bfloat16, enabled=bf16)
            self.context.__enter__()

        def after_loss(self) -> None:
            self.context.__exit__(None, None, None)

    network, (train, test) = network_of(name, part, seed), loaders(name, part == AUGMENTED)

    def optimizer(parameters: Any, lr: float, **_: Any) -> Any:
        return OptimWrapper(opt=torch.optim.Adam(network.groups(BODY_RATE, HEAD_RATE)))

    clock = Clock()
    data = DataLoaders(train, test, device=DEVICE)
    learner = Learner(data, network, functional.cross_entropy, opt_func=optimizer, cbs=[Modes()])
    learner.dls.valid = []
    with learner.no_bar(), learner.no_logging():
        learner.fit(PEER_EPOCHS)
    return clock.figures(network, test)


def keras(name: str, part: str, seed: int, bf16: bool = False) -> dict[str, float]:
    os.environ["KERAS_BACKEND"] = "torch"
    if DEVICE.type == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import keras
    import torch
    from keras.layers import TorchModuleWrapper

    if bf16:
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    network, (train, test) = network_of(name, part, seed), loaders(name, part == AUGMENTED)
    network.set_modes()
    network.train = lambda mode=True: network  # Keras sets the mode of all layers alike, which moves frozen statistics

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.network = TorchModuleWrapper(network)

        def call(self, images: Any) -> Any:
            with torch.autocast(DEVICE.type, dtype=torch.bfloat16, enabled=bf16):
                return self.network(images)

    clock = Clock()
    model = Model()
    model.compile(
        optimizer=keras.optimizers.Adam(HEAD_RATE if part in ("head", AUGMENTED) else BODY_RATE),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    watch = keras.callbacks.LambdaCallback(on_train_begin=clock.begin, on_train_end=clock.end)
    model.fit(train, epochs=PEER_EPOCHS, verbose=0, callbacks=[watch])
    del network.train
    return clock.figures(network, test)
