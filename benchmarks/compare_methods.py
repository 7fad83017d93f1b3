"""Every way of tuning there is on one task: what each reaches on samples it has not seen, over seeds.

    python benchmarks/compare_methods.py texts      MiniLM learns ten kinds of package descriptions
    python benchmarks/compare_methods.py clipart    EfficientNet-Lite0 learns eight kinds of clip art from 160 pictures

4,000 texts for training and 2,000 for the test, three epochs; 160 pictures each, eight epochs. Every method begins with
the same head, solved in closed form, and runs at its own default rate; a round is a seed, of which there are three.
`accuracy` is their mean ± standard deviation, `trained_share` that of the model's parameters, `file_mib` what is saved.
NEURENIX_BENCH_TEXTS: training texts, of the test half as many. NEURENIX_BENCH_TOKENS: of each text, at most.
NEURENIX_BENCH_EPOCHS: for trials.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from _device import DEVICE
from _race import race
from _texts import USED, import_all, load, section_names, texts

TOKENS = int(os.environ.get("NEURENIX_BENCH_TOKENS", 128))
EPOCHS = {task: int(os.environ.get("NEURENIX_BENCH_EPOCHS", usual)) for task, usual in (("texts", 3), ("clipart", 8))}
ALL = "full"  # whose fit the others' times are compared with
SMALL = ("head", "adapter", "lora", "ia3", "scale_shift", "bias", "norm")
METHODS: dict[str, dict[str, dict[str, str]]] = {
    "texts": {
        ALL: {"method": "lp_ft"},  # with the head that the others begin with
        **{name: {} for name in (*SMALL, "prompt")},
        "adapter, pfeiffer": {"method": "adapter", "adapter_type": "pfeiffer"},
        "prompt, shallow": {"method": "prompt", "prompt_type": "shallow"},
    },
    "clipart": {
        ALL: {"method": "lp_ft"},
        **{name: {} for name in SMALL if name != "ia3"},
    },  # that one has no place here
}


def compared(task: str, label: str, seed: int) -> Mapping[str, float]:
    """One method with one seed."""
    from neurenix.transfer import compare

    import_all()
    model, train, test = of_texts() if task == "texts" else of_pictures()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    found = compare(
        model,
        train,
        test,
        {label: METHODS[task][label]},
        num_classes=len(train.classes),
        epochs=EPOCHS[task],
        batch_size=32 if task == "texts" else 16,
        seeds=[seed],
    ).rows[0]
    return {
        "seconds": found.seconds,
        "accuracy": found.score,
        "trained": found.trained,
        "trained_share": found.trained / parameters,
        "file_mib": found.file,
        "memory_mib": found.memory,
    }


def of_texts() -> tuple[Any, Any, Any]:
    from neurenix.data import TextDataset

    train, test = (TextDataset(*texts(which), classes=section_names()) for which in ("train", "test"))
    return load(TOKENS), train, test


def of_pictures() -> tuple[Any, Any, Any]:
    from neurenix.data import ImageFolder
    from neurenix.demos import clipart_path
    from neurenix.transfer import load_pretrained_model

    train, test = (ImageFolder(str(clipart_path(part))) for part in ("train", "test"))
    return load_pretrained_model("efficientnet-lite0", device=str(DEVICE)), train, test


def main() -> None:
    warnings.simplefilter("ignore")
    asked = next((argument for argument in sys.argv[1:] if argument in METHODS), None)
    sys.argv = [argument for argument in sys.argv if argument != asked]
    for task in [asked] if asked else METHODS:
        title = {
            "texts": f"MiniLM-L6, {USED:,} package descriptions of ten kinds, at most {TOKENS} tokens of each",
            "clipart": "EfficientNet-Lite0, 160 pictures of eight kinds of clip art",
        }[task]
        contestants: dict[str, Callable[[int], Mapping[str, float]]] = {
            label: partial(compared, task, label) for label in METHODS[task]
        }
        name = {"texts": "methods-minilm", "clipart": "methods-lite0"}[task]
        race(name, f"{title}, {EPOCHS[task]} epochs", contestants, ours=ALL, rounds=3, arguments=[task])


if __name__ == "__main__":
    main()
