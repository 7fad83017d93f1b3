"""Small networks, data and fits for the tests of the frozen prefix: the same fit with its rows stored, and without."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from tests.devices import DEVICE
from tests.unit.prefix.models import BertClassifier, encoder, gpt2, t5
from torch import Tensor, nn
from torch.utils.data import Dataset

from neurenix.callbacks import Callback
from neurenix.models import PretrainedModel, adopt
from neurenix.storage import tensor_digest
from neurenix.transfer import Finetuner

Options = dict[str, Any]


class Convolutional(nn.Module):
    """Two blocks, a last one with batch norm and dropout, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.middle = nn.Sequential(nn.Conv2d(6, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.last = nn.Sequential(
            nn.Conv2d(8, 10, 3, bias=False), nn.BatchNorm2d(10), nn.ReLU(inplace=True), nn.Dropout(0.3)
        )
        self.fc = nn.Linear(10, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.last(self.middle(self.stem(images))).mean((2, 3)))


class Skipping(nn.Module):
    """What enters the frozen block is read above it too."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(inplace=True))
        self.frozen = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.beside = nn.Conv2d(4, 5, 1)
        self.trained = nn.Sequential(nn.Conv2d(6, 5, 3, padding=1), nn.ReLU(inplace=True), nn.Dropout(0.2))
        self.fc = nn.Linear(5, 3)

    def forward(self, images: Tensor) -> Tensor:
        below = self.stem(images)
        return self.fc((self.trained(self.frozen(below)) + self.beside(below)).mean((2, 3)))


class Words(nn.Module):
    """The mean over a text's tokens of what three layers make of each; the middle one is dear and its answer small."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(90, 8)
        self.layer = nn.Sequential(nn.Linear(8, 128), nn.ReLU(), nn.Linear(128, 4))
        self.last = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.1))
        self.fc = nn.Linear(8, 3)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        mask = inputs["attention_mask"].unsqueeze(-1)
        return self.fc((self.last(self.layer(self.words(inputs["input_ids"]))) * mask).sum(1) / mask.sum(1))


class Images(Dataset[Any]):
    """(3, 16, 16) tensors in three classes, each read counted."""

    def __init__(self, count: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.images = torch.randn(count, 3, 16, 16, generator=generator)
        for index in range(count):
            self.images[index, index % 3] += 0.3
        self.targets = [index % 3 for index in range(count)]
        self.reads = 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        self.reads += 1
        return self.images[index], index % 3


class Flickering(Images):
    """Noise of its own in each epoch."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, target = super().__getitem__(index)
        return image + 0.3 * torch.randn(image.shape), target


class Texts(Dataset[Any]):
    """Word numbers of some tokens in three classes; a batch is padded to the longest of its texts."""

    def __init__(self, count: int, seed: int = 0, shortest: int = 2, longest: int = 12) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.lengths = torch.randint(shortest, longest + 1, (count,), generator=generator).numpy()
        self.words = [torch.randint(5, 90, (int(length),), generator=generator) for length in self.lengths]
        self.reads = 0

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        self.reads += 1
        return self.words[index], index % 3

    def collate(self, samples: Sequence[tuple[Tensor, int]]) -> tuple[dict[str, Tensor], Tensor]:
        words = [words for words, _ in samples]
        longest = max(len(part) for part in words)
        ids, mask = torch.zeros(len(words), longest, dtype=torch.long), torch.zeros(len(words), longest).long()
        for row, part in enumerate(words):
            ids[row, : len(part)], mask[row, : len(part)] = part, 1
        return {"input_ids": ids, "attention_mask": mask}, torch.tensor([target for _, target in samples])


def vit() -> nn.Module:
    """Two small blocks, the last with stochastic depth."""
    import timm

    return timm.create_model(
        "vit_tiny_patch16_224", num_classes=3, img_size=16, patch_size=4, embed_dim=24, depth=2, drop_path_rate=0.2
    )


def short_bert() -> nn.Module:
    """Two layers and a classifier."""
    model = BertClassifier()
    model.bert.encoder.layer = model.bert.encoder.layer[:2]
    return model


def short_gpt2() -> nn.Module:
    """Two layers."""
    model = gpt2()
    model.h = model.h[:2]
    return model


def short_t5() -> nn.Module:
    """Two layers."""
    model = t5()
    model.encoder.block = model.encoder.block[:2]
    return model


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...]]] = {
    "last stage": (Convolutional, ("stem", "middle")),
    "head": (Convolutional, ("stem", "middle", "last")),
    "skip": (Skipping, ("stem", "frozen")),
    "vit": (vit, ("patch_embed", "cls_token", "pos_embed", "blocks.0")),
    "words": (Words, ("words", "layer")),
    "bert": (short_bert, ("bert.embeddings", "bert.encoder.layer.0")),
    "gpt2": (lambda: encoder(short_gpt2), ("wte", "wpe", "drop", "h.0")),
    "t5": (lambda: encoder(short_t5), ("shared", "encoder.dropout", "encoder.block.0")),
}
TEXTS = ("words", "bert", "gpt2", "t5")


def seeded(make: Callable[[], nn.Module], seed: int = 7) -> PretrainedModel:
    """A model whose weights, and running statistics, are always the same, and not those of a fresh one."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = adopt(make())
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 1.5)
    return model.to(DEVICE)


def tuner_for(name: str, use: str, **options: Any) -> Finetuner:
    """A Finetuner of one of LAYERS' models. SGD, whose steps are as small as what the gradients differ by."""
    make, frozen = LAYERS[name]
    settings: Options = {
        "num_classes": 3,
        "freeze_layers": frozen,
        "learning_rate": 0.05,
        "optimizer": "sgd",
        "precision": "fp32",
        "backend": "eager",
        "frozen_prefix": use,
    }
    return Finetuner(seeded(options.pop("make", make)), **{**settings, **options})


def fitted(name: str, use: str, train: Any, validation: Any = None, **options: Any) -> Finetuner:
    """A tuner after a fit. options: of fit, where it has them, else of Finetuner."""
    of_fit = {"batch_size": 4, "epochs": 3, "run": False}
    of_fit = {key: options.pop(key, value) for key, value in of_fit.items()}
    of_fit |= {key: options.pop(key) for key in ("callbacks", "checkpoint_every", "num_workers") if key in options}
    tuner = tuner_for(name, use, **options)
    tuner.fit(train, validation, **of_fit)
    return tuner


def numbers(tuner: Finetuner) -> list[dict[str, Any]]:
    """What the history says, but for the time."""
    return [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in tuner.history.epochs]


def digests(tuner: Finetuner) -> dict[str, str]:
    """Of weights, buffers and moments."""
    found = {name: tensor_digest(tensor) for name, tensor in tuner.model.state_dict().items()}
    for name, parameter in tuner.model.named_parameters():
        for key, value in tuner.optimizer.state.get(parameter, {}).items():
            found[f"{name}:{key}"] = tensor_digest(value) if isinstance(value, Tensor) else repr(value)
    return found


def gap(one: Finetuner, other: Finetuner) -> float:
    """The largest difference between two fits, over losses and final weights."""
    largest = 0.0
    for mine, theirs in zip(one.history.epochs, other.history.epochs, strict=True):
        assert mine.keys() == theirs.keys()
        largest = max([largest, *(abs(mine[name] - theirs[name]) for name in mine if name.endswith("loss"))])
    weights = other.model.state_dict()
    for name, tensor in one.model.state_dict().items():
        largest = max(largest, float((tensor.double() - weights[name].double()).abs().max()))
    return largest


class Cut(KeyboardInterrupt):
    """Stands for the user's Ctrl-C that no handler sees, or a kill: nothing is saved of the last step."""


class CutAfter(Callback):
    """Ends the fit after so many of this process's steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def on_train_batch_end(self, batch: int, logs: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise Cut
