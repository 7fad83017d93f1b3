"""Every way of tuning there is on one task: what each reaches on samples it has not seen, over seeds.

    python benchmarks/compare_methods.py texts      MiniLM learns ten kinds of package descriptions
    python benchmarks/compare_methods.py clipart    EfficientNet-Lite0 learns eight kinds of clip art from 160 pictures

4,000 texts for training and 2,000 for the test, three epochs; 160 pictures each, eight epochs; three seeds. Every
method begins with the same head, solved in closed form, and runs at its own default rate. NEURENIX_BENCH_TEXTS:
training texts, of the test half as many. NEURENIX_BENCH_TOKENS: of each text, at most. NEURENIX_BENCH_SEEDS,
NEURENIX_BENCH_EPOCHS: for trials.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

from _results import write_comparison, write_page
from _texts import USED, import_all, load, section_names, texts

from neurenix.data import ImageFolder, TextDataset
from neurenix.demos import clipart_path
from neurenix.transfer import compare, load_pretrained_model

SEEDS = int(os.environ.get("NEURENIX_BENCH_SEEDS", 3))
TOKENS = int(os.environ.get("NEURENIX_BENCH_TOKENS", 128))
SMALL = ("head", "adapter", "lora", "ia3", "scale_shift", "bias", "norm")


def of_texts() -> None:
    train, test = (TextDataset(*texts(which), classes=section_names()) for which in ("train", "test"))
    methods: dict[str, dict[str, object]] = {name: {} for name in (*SMALL, "prompt")}
    methods |= {"full": {"method": "lp_ft"}}  # with the head that the others begin with
    methods |= {"adapter, pfeiffer": {"method": "adapter", "adapter_type": "pfeiffer"}}
    methods |= {"prompt, shallow": {"method": "prompt", "prompt_type": "shallow"}}
    about = f"MiniLM, {USED:,} texts of ten kinds, at most {TOKENS} tokens of each"
    tell("methods-minilm", about, load(TOKENS), train, test, methods, epochs=3)


def of_pictures() -> None:
    train, test = (ImageFolder(str(clipart_path(part))) for part in ("train", "test"))
    methods: dict[str, dict[str, object]] = {name: {} for name in SMALL if name != "ia3"}  # that one has no place here
    model = load_pretrained_model("efficientnet-lite0")
    about = f"EfficientNet-Lite0, {len(train)} pictures of eight kinds of clip art"
    tell("methods-lite0", about, model, train, test, methods, epochs=8, batch_size=16)


def tell(
    name: str, about: str, model: Any, train: Any, test: Any, methods: Any, epochs: int, batch_size: int = 32
) -> None:
    epochs = int(os.environ.get("NEURENIX_BENCH_EPOCHS", epochs))
    found = compare(model, train, test, methods, epochs=epochs, batch_size=batch_size, seeds=range(SEEDS))
    write_comparison(name, f"{about}, {epochs} epochs, {SEEDS} seed{'s' * (SEEDS > 1)}", found)
    write_page()
    print(found)


def main() -> None:
    warnings.simplefilter("ignore")
    import_all()
    asked = sys.argv[1:] or ["texts", "clipart"]
    for task in asked:
        {"texts": of_texts, "clipart": of_pictures}[task]()


if __name__ == "__main__":
    main()
