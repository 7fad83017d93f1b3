"""A thousand image files made of the demo's clip art, and the networks that are trained on them."""

from __future__ import annotations

import os
import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from _device import DEVICE, import_present
from _race import UNTIMED
from PIL import Image, ImageOps
from torch import nn

from neurenix.demos import clipart_path

COUNT, SIDE = int(os.environ.get("NEURENIX_BENCH_FILES", 1000)), 400  # at least 160, for trials
EPOCHS = int(os.environ.get("NEURENIX_BENCH_EPOCHS", 10))
# What the peers run of that, where all of it would take too long; their seconds are scaled to the whole.
PEER_IMAGES = int(os.environ.get("NEURENIX_BENCH_PEER_IMAGES", COUNT))
PEER_EPOCHS = int(os.environ.get("NEURENIX_BENCH_PEER_EPOCHS", EPOCHS))
# Peers' defaults lay images out by planes. By pixels the same sums take two thirds of the time on a CPU: for accuracies
# that are told without times, and for nothing that is timed (_race.py).
PEER_LAYOUT = torch.channels_last if UNTIMED in os.environ else torch.preserve_format
# What neurenix imports when it first needs it; the peers' imports are not in their seconds either.
_IMPORTED = ("accelerate", "networkx", "openvino", "openvino.frontend.pytorch.ts_decoder", "sklearn.linear_model")
_IMPORTED += ("torchmetrics.classification", "torch._dynamo", "torch.export", "torch.utils.flop_counter")


def import_all() -> None:
    """To be called before the clock starts."""
    import_present(_IMPORTED)


def folder() -> Path:
    """…/train with 1,000 JPEG files of 400 px in eight classes, turned, scaled and mirrored; …/test as it is."""
    target = Path(tempfile.gettempdir()) / f"neurenix-benchmark-images-{COUNT}"
    if target.is_dir():
        return target
    made = Path(tempfile.mkdtemp(dir=target.parent))
    files = sorted(clipart_path("train").glob("*/*.webp"))
    for number in range(COUNT):
        file, chance = files[number % len(files)], random.Random(number)
        image = Image.open(file).convert("RGB").rotate(chance.uniform(-15, 15), fillcolor="white", expand=True)
        image = ImageOps.mirror(image) if chance.random() < 0.5 else image
        image = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        place = made / "train" / file.parent.name / f"{number:04d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        image.save(place, quality=90)
    for file in sorted(clipart_path("test").glob("*/*.webp")):
        place = made / "test" / file.parent.name / f"{file.stem}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.open(file).convert("RGB").save(place, quality=95)
    made.rename(target)
    return target


def datasets(mean: tuple[float, ...], std: tuple[float, ...], augmented: bool = False) -> tuple[Any, Any]:
    """torchvision's ImageFolder of training and test images with the usual transform, which all contestants share.

    augmented: the training images are cut out and mirrored at random, as for ImageNet.
    """
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    last = [transforms.ToTensor(), transforms.Normalize(mean, std)]
    plain = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), *last])
    random = transforms.Compose([transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), *last])
    chains = {"train": random if augmented else plain, "test": plain}
    train, test = (ImageFolder(str(folder() / part), chain) for part, chain in chains.items())
    return train, test


class Network(nn.Module):
    """A network with a new head of eight classes, for the peers: `body` gives vectors, `head` is linear.

    name: efficientnet-lite0 with its real weights, or resnet50 with random ones. trained: beginning of the
    names of the body's parameters that learn beside the head; none by default. seed: of the head, and of all later.
    """

    def __init__(self, name: str, trained: str | tuple[str, ...] | None = None, seed: int = 0) -> None:
        super().__init__()
        model = load(name)
        torch.manual_seed(seed)
        self.body = nn.Sequential(model.trunk, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(model.feature_size, 8)
        for parameter_name, parameter in model.trunk.named_parameters():
            parameter.requires_grad_(trained is not None and parameter_name.startswith(trained))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (n, 3, h, w) -> logits (n, 8)."""
        return self.head(self.body(images.to(memory_format=PEER_LAYOUT)))

    def set_modes(self) -> None:
        """Training mode, but frozen batch norms keep their statistics, as careful users of the peers have it."""
        self.train()
        for module in self.body.modules():
            own = list(module.parameters(recurse=False))
            if own and not any(parameter.requires_grad for parameter in own):
                module.eval()

    def groups(self, body_rate: float, head_rate: float) -> list[dict[str, Any]]:
        """Parameter groups for an optimizer."""
        body = [parameter for parameter in self.body.parameters() if parameter.requires_grad]
        return [{"params": body, "lr": body_rate}] * bool(body) + [{"params": self.head.parameters(), "lr": head_rate}]


def load(name: str) -> Any:
    """efficientnet-lite0 with real weights, others with random ones that are always the same."""
    from neurenix.transfer import load_pretrained_model

    torch.manual_seed(0)
    weights = {} if name == "efficientnet-lite0" else {"weights": None}
    model = load_pretrained_model(name, device=str(DEVICE), **weights)
    if name == "resnet50":
        _as_if_trained(model)
    return model


@torch.no_grad()
def _as_if_trained(model: Any) -> None:
    """Branches that give something, and statistics of images, as no trained network lacks them.

    timm begins each branch with 0, and a runtime may then leave the whole branch out.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for name, module in model.named_modules():
        if name.endswith("bn3"):
            nn.init.constant_(module.weight, 0.3)
    for norm in norms:
        norm.momentum = None  # the mean over all batches
    files = datasets(*statistics_of("resnet50"))[0]
    model.train()
    model(torch.stack([files[place][0] for place in spread(files.targets, 32)]).to(DEVICE))
    model.eval()
    for norm in norms:
        norm.momentum = 0.1


def statistics_of(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation that a model's images are normalised with."""
    halves = name in ("efficientnet-lite0", "vit-small-patch16-224")
    return ((0.5,) * 3, (0.5,) * 3) if halves else ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def loaders(name: str, augmented: bool = False, batch_size: int = 32) -> tuple[Any, Any]:
    """torch's loaders for the peers, with two workers; of PEER_IMAGES images for training."""
    train, test = datasets(*statistics_of(name), augmented)
    some = torch.utils.data.Subset(train, spread(train.targets, PEER_IMAGES))
    options: dict[str, Any] = {"batch_size": batch_size, "num_workers": 2}
    return (
        torch.utils.data.DataLoader(some, shuffle=True, **options),
        torch.utils.data.DataLoader(test, **options),
    )


def spread(classes: list[int], count: int) -> list[int]:
    """The places of so many samples, always the same, that have each class as often as all of them have."""
    sizes, before, shares = Counter(classes), Counter[int](), []
    for kind in classes:
        shares.append((before[kind] + 0.5) / sizes[kind])
        before[kind] += 1
    return sorted(sorted(range(len(classes)), key=lambda place: (shares[place], place))[:count])


@torch.no_grad()
def accuracy(network: nn.Module, loader: Any) -> float:
    """Share of the images that are named rightly, in fp32."""
    network.eval()
    network.to(DEVICE)
    right = [(network(images.to(DEVICE)).argmax(1).cpu() == classes).float() for images, classes in loader]
    return float(torch.cat(right).mean())
