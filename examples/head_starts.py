"""How a head begins, and what heads for values say, on a network of ImageNet's photographs: two tables.

    python examples/head_starts.py           about two minutes of one core
    python examples/head_starts.py --small   some seconds, with figures that say little

The first asks eight classes of clip art: a head solved in closed form before any training step, and what training makes
of it. The second asks the age of drawn trees, which grow, thicken, lose their green and are seen from near and far.
EfficientNet-Lite0's real weights come from an installed package (neurenix[demo]).
"""

from __future__ import annotations

import argparse
import math
import time
from random import Random
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from neurenix.data import ListDataset
from neurenix.demos import clipart_path
from neurenix.transfer import Finetuner, heads, load_pretrained_model

OLDEST = 80  # years
BARELY = 1e-9  # a learning rate that leaves a head as it began


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="few samples, small pictures")
    small = parser.parse_args().small
    show("Eight classes of clip art, 20 pictures each", ("training", "accuracy", "seconds"), starts(small))
    show("The age of drawn trees, 1 to 80 years", ("head", "R²", "mean error", "in 80 %", "seconds"), ages(small))


def starts(small: bool) -> list[tuple[Any, ...]]:
    """The head alone, as it is solved; then everything, from a solved head and from a random one."""
    side, epochs = (32, 1) if small else (96, 3)
    solved = heads.Linear(num_outputs=8, start="closed_form")
    ways: dict[str, tuple[dict[str, Any], int]] = {
        "random head, no step": ({"num_classes": 8, "learning_rate": BARELY}, 1),
        "closed form, no step": ({"head": solved, "strategy": "head", "learning_rate": BARELY}, 1),
        "everything, from a random head": ({"num_classes": 8, "strategy": "full"}, epochs),
        "lp_ft: closed form, then everything": ({"num_classes": 8, "strategy": "lp_ft"}, epochs),
    }
    rows = []
    for name, (settings, passes) in ways.items():
        started = time.perf_counter()
        model = load_pretrained_model("efficientnet-lite0", input_shape=(side, side, 3), device="cpu")
        tuner = Finetuner(model, **settings)
        tuner.fit(clipart_path("train"), epochs=passes, batch_size=16, run=False)
        accuracy = tuner.evaluate(clipart_path("test"))["accuracy"]
        rows.append((name, f"{accuracy:.3f}", f"{time.perf_counter() - started:.0f}"))
    return rows


def ages(small: bool) -> list[tuple[Any, ...]]:
    """Heads for values on the same frozen network, and the share of true ages in what they call 80 % of them.

    320 trees are few for 1,280 features: a head that is trained on them knows them too well to tell how wrong it will
    be about others. One that is solved takes its spread from what it foretells of each tree without having seen it.
    """
    side, count, epochs = (32, 24, 2) if small else (96, 320, 20)
    drawn = [trees(count, side, seed) for seed in (0, 1)]
    truth = np.asarray(drawn[1][1])
    kinds: dict[str, heads.HeadKind] = {
        "regression, closed form": heads.Regression(num_outputs=1, units=["years"], start="closed_form"),
        "quantile, closed form": heads.Quantile(num_outputs=1, units=["years"], start="closed_form"),
        "gaussian, closed form": heads.Gaussian(num_outputs=1, units=["years"], start="closed_form"),
        "gaussian, trained": heads.Gaussian(num_outputs=1, units=["years"]),
    }
    rows = []
    for name, kind in kinds.items():
        started = time.perf_counter()
        model = load_pretrained_model("efficientnet-lite0", input_shape=(side, side, 3), device="cpu")
        # images that are ready are taken as they are: random crops would change the size that tells the age
        train, test = (ListDataset(images, years, transform=model.preprocess) for images, years in drawn)
        solved = "closed form" in name
        rate = BARELY if solved else 3e-3
        tuner = Finetuner(model, head=kind, strategy="head", learning_rate=rate, metrics=["r2", "mae"])
        tuner.fit(train, epochs=1 if solved else epochs, batch_size=32, run=False)
        found = tuner.evaluate(test)
        covered = share_covered(tuner, test, truth)
        shown = "" if covered is None else f"{covered:.2f}"
        seconds = f"{time.perf_counter() - started:.0f}"
        rows.append((name, f"{found['r2']:.3f}", f"{found['mae']:.1f} years", shown, seconds))
    return rows


def share_covered(tuner: Finetuner, test: ListDataset, truth: np.ndarray) -> float | None:
    """The share of true ages between the tenth and the ninetieth percentile that are foretold; None for a head that
    foretells none.
    """
    kind = (tuner.model.head_record or {}).get("kind")
    if kind == "quantile":
        low, _, high = np.asarray(tuner.predict(test)).reshape(len(truth), 3).T
    elif kind == "gaussian":
        middle, spread = np.asarray(tuner.predict(test)).ravel(), np.asarray(tuner.predict_sd(test)).ravel()
        low, high = middle - 1.2816 * spread, middle + 1.2816 * spread  # the normal distribution's quantiles
    else:
        return None
    return float(((low <= truth) & (truth <= high)).mean())


def trees(count: int, side: int, seed: int) -> tuple[list[np.ndarray], list[float]]:
    """Drawn trees, and their ages in years."""
    draw = Random(seed)
    ages = [draw.uniform(1, OLDEST) for _ in range(count)]
    return [np.asarray(tree(age, side, draw)) for age in ages], ages


def tree(age: float, side: int, draw: Random) -> Image.Image:
    """A tree of that age, somewhere in a picture, in changing light, and not all of one age alike."""
    grown = age / OLDEST
    light = draw.uniform(0.7, 1.0)
    sky = tuple(int(light * value) for value in (190, 215, 240))
    image = Image.new("RGB", (4 * side, 4 * side), sky)
    pen = ImageDraw.Draw(image)
    ground, middle = 3.7 * side, 4 * side * draw.uniform(0.35, 0.65)
    pen.rectangle((0, ground, 4 * side, 4 * side), fill=tuple(int(light * value) for value in (90, 130, 60)))
    far = draw.uniform(0.8, 1.0)
    height = far * side * (0.6 + 2.2 * math.sqrt(grown)) * draw.uniform(0.93, 1.07)
    width = far * side * (0.03 + 0.3 * grown) * draw.uniform(0.9, 1.1)
    pen.rectangle((middle - width / 2, ground - 0.6 * height, middle + width / 2, ground), fill=(80, 55, 35))
    green, brown = np.array([50, 140, 50]), np.array([150, 110, 40])
    leaf = light * (green + grown * (brown - green))
    for _ in range(int(8 + 30 * grown)):
        x = middle + draw.gauss(0, 0.28 * height)
        y = ground - 0.7 * height + draw.gauss(0, 0.18 * height)
        size = 0.1 * height * draw.uniform(0.6, 1.4)
        shade = tuple(int(value * draw.uniform(0.85, 1.15)) for value in leaf)
        pen.ellipse((x - size, y - size, x + size, y + size), fill=shade)
    return image.resize((side, side), Image.Resampling.LANCZOS)


def show(title: str, head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    """A table of texts."""
    widths = [max(len(str(row[column])) for row in [head, *rows]) for column in range(len(head))]
    print(f"\n{title}")
    for row in [head, *rows]:
        print("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    main()
