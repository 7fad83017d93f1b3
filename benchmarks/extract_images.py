"""Features of images that are decoded already, by three networks: torchvision's and timm's ways, and neurenix.

    python benchmarks/extract_images.py             three networks
    python benchmarks/extract_images.py resnet50    (or: efficientnet-lite0, vit-small-patch16-224) the one named

EfficientNet-Lite0 has its real weights, the others random ones. `seconds` are those of the whole job: building what
there is to build, and all images in batches of 32; `images_per_second` are those of all batches but the first, in which
things are built. `cosine` is the least of 64 images' to timm's features in fp32, computed afterwards.

There are peers in bf16 only where the processor multiplies bf16: elsewhere it is emulated, and slower than fp32. With
precision="auto" neurenix takes fewer digits than fp32's, down to 8 bits, where that is faster and the answers agree.
NEURENIX_BENCH_IMAGES: how many images, 256 of them different. NEURENIX_BENCH_PEER_IMAGES: those that the peers run,
where all would take too long; their seconds are scaled to all.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

import timm
import torch
from _device import DEVICE, multiplies_bfloat16, now
from _images import datasets, import_all, load, spread, statistics_of
from _race import race
from torch import Tensor, nn
from torch.utils.data import Dataset

from neurenix.devices import is_exact

COUNT = int(os.environ.get("NEURENIX_BENCH_IMAGES", 1024))
PEERS = min(COUNT, int(os.environ.get("NEURENIX_BENCH_PEER_IMAGES", COUNT)))
DIFFERENT, COMPARED, BATCH = 256, 64, 32
NETWORKS = {  # neurenix's name -> timm's, and the node of the pooled features of convolutional ones
    "efficientnet-lite0": ("tf_efficientnet_lite0", "global_pool.flatten"),
    "resnet50": ("resnet50", "global_pool.flatten"),
    "vit-small-patch16-224": ("vit_small_patch16_224", None),
}


class Repeated(Dataset):  # type: ignore[type-arg]
    """COUNT images, of which DIFFERENT are different. first_batch, second_batch: when those were begun."""

    def __init__(self, name: str) -> None:
        files = datasets(*statistics_of(name))[0]
        self.images = torch.stack([files[place][0] for place in spread(files.targets, min(DIFFERENT, COUNT))])
        self.first_batch = self.second_batch = 0.0

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, place: int) -> Tensor:
        if place == BATCH:
            self.second_batch = now()
        return self.images[place % len(self.images)]

    def batches(self) -> Any:
        """For the peers, cut from the tensor and not put together image by image."""
        self.first_batch = now()
        for start in range(0, PEERS, BATCH):
            if start == BATCH:
                self.second_batch = now()
            first = start % len(self.images)
            yield self.images[first : first + min(BATCH, PEERS - start)]


def ours(name: str, precision: str = "fp32") -> dict[str, float]:
    from neurenix.transfer import FeatureExtractor

    import_all()
    model, images = load(name), Repeated(name)
    started = now()
    features = FeatureExtractor(model, precision=precision).extract(images, batch_size=BATCH, progress=False)[0]
    return figures(name, started, images, features)


def torchvision(name: str, bf16: bool = False) -> dict[str, float]:
    from timm.layers import get_notrace_functions, get_notrace_modules
    from torchvision.models.feature_extraction import create_feature_extractor

    network, nodes = timms(name), {NETWORKS[name][1]: "features"}
    # timm knows which of its layers the tracer cannot look into
    options = {"leaf_modules": get_notrace_modules(), "autowrap_functions": get_notrace_functions()}
    return by_torch(name, lambda: create_feature_extractor(network, nodes, tracer_kwargs=options), bf16)


def by_timm(name: str, bf16: bool = False) -> dict[str, float]:
    network = timms(name)
    return by_torch(name, lambda: network, bf16)


def by_torch(name: str, build: Callable[[], nn.Module], bf16: bool) -> dict[str, float]:
    images, parts = Repeated(name), []
    started = now()
    network = build()
    with torch.inference_mode(), torch.autocast(DEVICE.type, dtype=torch.bfloat16, enabled=bf16):
        for batch in images.batches():
            given = network(batch.to(DEVICE))
            parts.append(given["features"] if isinstance(given, dict) else given)
        features = torch.cat(parts).cpu()
    return figures(name, started, images, features)


def timms(name: str) -> nn.Module:
    """timm's network with the weights that ours has."""
    network = timm.create_model(NETWORKS[name][0], num_classes=0)
    network.load_state_dict(load(name).trunk.state_dict())
    return network.eval().to(DEVICE)


def figures(name: str, started: float, images: Repeated, features: Tensor) -> dict[str, float]:
    """What a contestant tells, who ran as many images as there are features; the job ends now.

    Where not all were run, the time of the batches is scaled, and that of building is not.
    """
    ended, run = now(), len(features)
    some = images.images[:COMPARED]
    with torch.inference_mode():
        expected = torch.cat([timms(name)(batch.to(DEVICE)) for batch in some.split(BATCH)]).cpu()
    cosine = torch.cosine_similarity(features[: len(some)].double(), expected.double())
    return {
        "seconds": ended - started + (ended - images.first_batch) * (COUNT / run - 1),
        "images_per_second": (run - BATCH) / (ended - images.second_batch),
        "cosine": float(cosine.min()),
    }


def contestants(name: str) -> dict[str, Callable[[int], dict[str, float]]]:
    found: dict[str, Callable[[int], dict[str, float]]] = {"neurenix": lambda seed: ours(name)}
    peers: dict[str, Callable[..., dict[str, float]]] = {"timm eager": by_timm}
    if NETWORKS[name][1] is not None:
        peers = {"torchvision create_feature_extractor": torchvision, **peers}
    found |= {f"{label}, fp32": lambda seed, peer=peer: peer(name) for label, peer in peers.items()}
    if not is_exact("auto", DEVICE):
        found["neurenix, precision=auto"] = lambda seed: ours(name, "auto")
    if multiplies_bfloat16():
        found |= {f"{label}, bf16": lambda seed, peer=peer: peer(name, bf16=True) for label, peer in peers.items()}
    return found


def main() -> None:
    warnings.simplefilter("ignore")
    asked = len(sys.argv) > 1 and sys.argv[1] in NETWORKS
    for name in [sys.argv.pop(1)] if asked else NETWORKS:
        title = f"{name}, features of {COUNT:,} images of 224 px in memory, batches of {BATCH}"
        note = f"The peers ran {PEERS:,} images and are scaled to all." if PEERS < COUNT else ""
        race(f"extract-{name}", title, contestants(name), ours="neurenix", rounds=3, arguments=(name,), note=note)


if __name__ == "__main__":
    main()
