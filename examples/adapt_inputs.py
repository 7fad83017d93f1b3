"""What a network of ImageNet's photographs is worth on sounds, other channels and other sizes, as three tables.

    python examples/adapt_inputs.py           about two minutes of one core
    python examples/adapt_inputs.py --small   some seconds, with figures that say little

EfficientNet-Lite0's real weights come from an installed package (neurenix[demo]), the sounds from eSpeak NG (the
package espeakng-loader), the pictures are the clip art in neurenix.demos. Asked are other voices and other pictures
than learnt.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from spoken_words import sound
from torch import nn

from neurenix.data import ImageFolder, ListDataset
from neurenix.demos import clipart_path
from neurenix.models import PretrainedModel, adopt
from neurenix.transfer import Finetuner, adapt_channels, adapt_resolution, adapt_to_sounds, load_pretrained_model

WORDS = ("down", "left", "no", "right", "up", "yes")
LEARNT = (("en-us", "en-gb-scotland"), ("m1", "m3", "f1", "f3", "f4"), (150, 190))
ASKED = (("en-us", "en-gb-x-rp"), ("m2", "m7", "f2", "f5"), (170,))
COLOURS = {"red": "red", "green": "green", "blue": "blue"}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="few samples, small pictures")
    small = parser.parse_args().small
    show("Six words by unknown voices", ("network", "accuracy", "seconds"), words(small))
    show("Eight classes of clip art, the head alone", ("channels", "accuracy", "seconds"), channels(small))
    show("The same by size", ("pixels", "accuracy", "ms for a picture"), sizes(small))


def words(small: bool) -> list[tuple[Any, ...]]:
    """Pretrained on photographs and fine-tuned on pictures of sounds, against a small network that knows nothing."""
    train, test = (spoken(*voices, small) for voices in (LEARNT, ASKED))
    model = lite0(32 if small else 96)
    adapt_to_sounds(model, seconds=0.8, data=train)
    tuner = Finetuner(model, strategy="lp_ft")
    rows = [("EfficientNet-Lite0, ImageNet", *fitted(tuner, train, test, 2))]
    scratch = small_network(len(WORDS))
    scratch.preprocess = model.preprocess
    tuner = Finetuner(scratch, num_classes=len(WORDS), strategy="full", learning_rate=3e-3)
    return [*rows, ("four convolutions from scratch", *fitted(tuner, train, test, 2 if small else 12))]


def channels(small: bool) -> list[tuple[Any, ...]]:
    """Colours, grey, and colours with a mask of what is no paper as the fourth channel."""
    mask = COLOURS | {"mask": {}}
    ways: dict[str, tuple[str, dict[str, Any] | None]] = {
        "3: red, green, blue": ("colours", None),
        "1: grey, filters added up": ("grey", {"channels": 1}),
        "1: grey, matched to the data": ("grey", {"channels": 1, "data": True}),
        "4: a mask, read like red": ("masked", {"channels": 4}),
        "4: a mask, begun with zeros": ("masked", {"channels": 4, "bands": mask}),
        "4: a mask, zeros, matched to the data": ("masked", {"channels": 4, "bands": mask, "data": True}),
    }
    rows = []
    for name, (kind, way) in list(ways.items())[:: 2 if small else 1]:
        train, test = (pictures(split, kind, small) for split in ("train", "test"))
        model = lite0(32 if small else 128)
        if way is not None:
            adapt_channels(model, **{**way, "data": train if way.get("data") else None})
        rows.append((name, *fitted(head_of(model), train, test, 8 if small else 20)))
    return rows


def sizes(small: bool) -> list[tuple[Any, ...]]:
    """One network, adapted after loading."""
    rows = []
    for side in (32, 64) if small else (128, 224, 320):
        train, test = (pictures(split, "colours", small) for split in ("train", "test"))
        model = lite0(224)
        adapt_resolution(model, side)
        accuracy, _ = fitted(head_of(model), train, test, 8 if small else 20)
        rows.append((f"{side} x {side}", accuracy, f"{1000 * seconds_for_one(model, side):.0f}"))
    return rows


def lite0(side: int) -> PretrainedModel:
    """The real weights, without their head."""
    return load_pretrained_model("efficientnet-lite0", input_shape=(side, side, 3), include_top=False, device="cpu")


def head_of(model: PretrainedModel) -> Finetuner:
    """A new head on frozen layers, which run once for each picture."""
    return Finetuner(model, strategy="head", augmented_views=1, learning_rate=3e-3, backend="eager")


def fitted(tuner: Finetuner, train: Any, test: Any, epochs: int) -> tuple[str, str]:
    """(accuracy on `test`, seconds of training)"""
    began = time.perf_counter()
    tuner.fit(train, epochs=epochs, batch_size=24, run=False)
    seconds = time.perf_counter() - began
    return f"{tuner.evaluate(test)['accuracy']:.3f}", f"{seconds:.0f}"


def spoken(languages: Sequence[str], variants: Sequence[str], rates: Sequence[int], small: bool) -> ListDataset:
    """Every word by every voice at every rate."""
    languages, variants = (languages[:1], variants[:3]) if small else (languages, variants)
    said = list(itertools.product(WORDS, languages, variants, rates))
    sounds = [sound(word, f"{language}+{variant}", rate) for word, language, variant, rate in said]
    return ListDataset(sounds, [row[0] for row in said])


def pictures(split: str, kind: str, small: bool) -> ListDataset:
    """Clip art as uint8 arrays (height, width, channels)."""
    folder = ImageFolder(clipart_path(split))
    samples = [folder[place] for place in range(0, len(folder), 4 if small else 2)]
    images = [of_kind(np.asarray(image.convert("RGB")), kind) for image, _ in samples]
    return ListDataset(images, [folder.classes[label] for _, label in samples])


def of_kind(image: np.ndarray, kind: str) -> np.ndarray:
    """A picture in colours, grey, or with a mask that is 255 where it is no white paper."""
    if kind == "grey":
        return image.mean(2).round().astype(np.uint8)
    mask = 255 * (image.min(2, keepdims=True) < 245).astype(np.uint8)
    return np.concatenate([image, mask], 2) if kind == "masked" else image


def small_network(classes: int) -> PretrainedModel:
    """Four convolutions with norms, from random numbers."""
    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for inputs, outputs in itertools.pairwise((1, 16, 32, 64, 128)):
            layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        return adopt(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, classes)))


@torch.inference_mode()
def seconds_for_one(model: PretrainedModel, side: int, passes: int = 1) -> float:
    """Of one core, or as many as torch uses."""
    batch = torch.zeros(4, 3, side, side)
    model(batch)
    began = time.perf_counter()
    for _ in range(passes):
        model(batch)
    return (time.perf_counter() - began) / passes / len(batch)


def show(title: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    """A table in Markdown."""
    print(f"\n{title}\n\n| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")


if __name__ == "__main__":
    main()
