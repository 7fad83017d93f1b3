"""From digits drawn in fonts to handwriting that nobody labelled, by every method: a table, and what the choice costs.

    python examples/digit_shift.py                          five seeds, all methods: some hours of two cores
    python examples/digit_shift.py --seeds 1 --methods dann mcc shot
    python examples/digit_shift.py --small                  some seconds, with figures that say little

Source: 3,000 digits in the fonts that matplotlib brings, any colour on any background, as sharp as 8 to 64 points are.
Target: scikit-learn's scans of handwriting, 1,000 without labels to adapt to, the other 797 to report on.
EfficientNet-Lite0's weights come from an installed package (neurenix[demo]); its first blocks stay frozen and run once.
The oracle is trained on the target's labels.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from typing import Any

import numpy as np
import torch
from rendered_digits import SIZE, handwritten_digits, rendered_digits
from torch import Tensor

from neurenix.transfer import Finetuner, compare_adaptations, load_pretrained_model
from neurenix.transfer.adaptation import AdaptationComparison

Labelled = tuple[Tensor, Tensor]
FROZEN = ["conv_stem", "bn1", "blocks.0", "blocks.1", "blocks.2"]
SETTINGS = {"num_classes": 10, "freeze_layers": FROZEN, "head_hidden_sizes": (256,), "norms": "target"}
SETTINGS |= {"frozen_prefix": "always"}  # one store serves all methods and seeds


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="few samples, few epochs")
    parser.add_argument("--seeds", type=int, default=5, help="so many of them")
    parser.add_argument("--methods", nargs="+", help="names; all by default")
    parser.add_argument("--device", default="auto", help="where to compute: cpu or cuda, say")
    parser.add_argument("--run", help="a folder for what is finished, so that the same command goes on where it ended")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    samples, others, epochs, seeds = (60, 40, 1, 1) if asked.small else (1000, 797, 10, asked.seeds)
    source, target, test = domains(samples, others)
    oracle = [tuned(network(asked.device), target, test, epochs, seed) for seed in range(seeds)]
    table = compare_adaptations(
        network(asked.device),
        source,
        target[0],
        asked.methods,
        test,
        epochs=epochs,
        seeds=range(seeds),
        settings=SETTINGS,
        run=asked.run,
    )
    print(table)
    print(f"oracle, trained on the target's labels: {statistics.mean(oracle):.4f}")
    for line in closed(table, statistics.mean(oracle)):
        print(line)


def domains(samples: int, others: int) -> tuple[Labelled, Labelled, Labelled]:
    """Source, target, and other labelled samples of the target, as the network reads them."""
    written, digits = handwritten_digits()
    order = np.random.default_rng(0).permutation(len(written))
    parts = order[:samples], order[samples:][:others]
    target, test = (([written[place] for place in part], [digits[place] for place in part]) for part in parts)
    source, target, test = (_tensors(*part) for part in (rendered_digits(3 * samples), target, test))
    return source, target, test


def network(device: str) -> Any:
    """A new one with its real weights."""
    return load_pretrained_model("efficientnet-lite0", input_shape=(SIZE, SIZE, 3), device=device)


def tuned(model: Any, target: Labelled, test: Labelled, epochs: int, seed: int) -> float:
    """Accuracy of a network that has seen the target's labels."""
    settings = {name: value for name, value in SETTINGS.items() if name != "norms"}
    tuner = Finetuner(model, seed=seed, **settings)  # type: ignore[arg-type]
    tuner.fit(target, epochs=epochs, run=False)
    return float(tuner.evaluate(test)["accuracy"])


def closed(table: AdaptationComparison, oracle: float) -> list[str]:
    """What each method closes of the gap between the source's model and the oracle, and what choosing cost."""
    alone = table.rows[0].target
    assert alone is not None
    if oracle == alone:  # by chance, of few samples
        return ["the oracle is no better than the source's model: there is no gap to close"]
    lines = [
        f"{row.name}: closes {(row.target - alone) / (oracle - alone):.0%} of the gap"
        for row in table.rows[1:]
        if row.target is not None
    ]
    best = max(row.target for row in table.rows if row.target is not None)
    chosen = table.chosen.target
    assert chosen is not None
    return [*lines, f"chosen without labels: {table.chosen.name}, {100 * (best - chosen):.1f} points below the best"]


def _tensors(images: list[Any], labels: list[int]) -> Labelled:
    """(n, 3, height, width) in [-1, 1], as these weights read them, and (n,)."""
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)
    return pixels.float() / 127.5 - 1, torch.tensor(labels)


if __name__ == "__main__":
    main()
