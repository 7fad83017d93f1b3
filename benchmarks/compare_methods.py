"""MiniLM learns ten kinds of texts in every way there is: what each reaches on texts it has not seen, over seeds.

    python benchmarks/compare_methods.py

4,000 texts for training, 2,000 for the test, three epochs, three seeds. Every method begins with the same head, solved
in closed form, and runs at its own default rate. NEURENIX_BENCH_TEXTS: training texts, of the test half as many.
NEURENIX_BENCH_SEEDS, NEURENIX_BENCH_EPOCHS: for trials.
"""

from __future__ import annotations

import os
import warnings

from _results import write_comparison, write_page
from _texts import USED, import_all, load, section_names, texts

from neurenix.data import TextDataset
from neurenix.transfer import compare

SEEDS = int(os.environ.get("NEURENIX_BENCH_SEEDS", 3))
EPOCHS = int(os.environ.get("NEURENIX_BENCH_EPOCHS", 3))
METHODS = ("head", "full", "adapter", "lora", "prompt", "ia3", "scale_shift", "bias", "norm")


def main() -> None:
    warnings.simplefilter("ignore")
    import_all()
    train, test = (TextDataset(*texts(which), classes=section_names()) for which in ("train", "test"))
    methods: dict[str, dict[str, object]] = {name: {} for name in METHODS}
    methods |= {"full": {"method": "lp_ft"}}  # with the head that the others begin with
    methods |= {"adapter, pfeiffer": {"method": "adapter", "adapter_type": "pfeiffer"}}
    methods |= {"prompt, shallow": {"method": "prompt", "prompt_type": "shallow"}}
    found = compare(load(128), train, test, methods, epochs=EPOCHS, seeds=range(SEEDS))
    title = f"MiniLM, {USED:,} texts of ten kinds, {EPOCHS} epochs, {SEEDS} seed{'s' * (SEEDS > 1)}"
    write_comparison("methods-minilm", title, found)
    write_page()
    print(found)


if __name__ == "__main__":
    main()
