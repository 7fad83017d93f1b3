"""MiniLM learns ten kinds of texts from 4,000 of them: transformers' Trainer, with PEFT for LoRA, and neurenix.

    python benchmarks/tune_texts.py head     a linear head on the frozen encoder, ten epochs
    python benchmarks/tune_texts.py lora     low-rank updates in the last two of six layers and the head, five epochs

All train the same parameters, from the same weights, with the same rates, batch size and longest text, with dropout in
the parts that are trained and none in those that are not. The texts are tokenised within the time that is told.

There are peers in bf16 only where the processor multiplies bf16: elsewhere it is emulated, and slower than fp32. Where
neurenix by itself takes fewer digits than fp32's, for frozen layers at least, it has a contestant in fp32 too.

NEURENIX_BENCH_EPOCHS: epochs of all. NEURENIX_BENCH_PEER_EPOCHS: those that the peers run where all would take too
long; what they take from their first step to their last is scaled to all epochs, what they take before is not.
NEURENIX_BENCH_TEXTS: training texts, for trials with fewer.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from _device import DEVICE, multiplies_bfloat16, now
from _race import race
from _texts import SECTIONS, USED, import_all, load, section_names, texts, weights
from torch import Tensor, nn
from torch.nn import functional

from neurenix.devices import is_exact

EPOCHS = {part: int(os.environ.get("NEURENIX_BENCH_EPOCHS", usual)) for part, usual in (("head", 10), ("lora", 5))}
BATCH, LONGEST, RATE = 32, 128, 1e-3
LORA: dict[str, Any] = {"r": 8, "lora_alpha": 16, "target_modules": ["query", "value"], "layers_to_transform": [4, 5]}


def ours(part: str, **options: Any) -> dict[str, float]:
    from neurenix.data import TextDataset
    from neurenix.transfer import Finetuner, LoraTuner

    import_all()
    model = load(LONGEST)
    train, test = (TextDataset(*texts(which), classes=section_names()) for which in ("train", "test"))
    alike: dict[str, Any] = {"learning_rate": RATE, "schedule": "constant", "warmup": 0, "weight_decay": 0.0, **options}
    started = now()
    if part == "head":
        tuner: Any = Finetuner(model, SECTIONS, strategy="head", **alike)
    else:
        tuner = LoraTuner(model, SECTIONS, rank=8, alpha=16, layers=2, solve_head=False, **alike)
    tuner.fit(train, batch_size=BATCH, epochs=EPOCHS[part], run=False)
    seconds = now() - started
    each = tuner.history["seconds"]
    return {"seconds": seconds, "accuracy": tuner.evaluate(test)["accuracy"], "first_epoch": each[0]}


def trainer(part: str, seed: int, bf16: bool = False) -> dict[str, float]:
    import_all()
    from transformers import AutoTokenizer, DataCollatorWithPadding, Trainer, TrainingArguments

    torch.manual_seed(seed)
    tokenizer, network = AutoTokenizer.from_pretrained(weights()), network_of(part)
    train, test = (texts(which) for which in ("train", "test"))
    epochs = peer_epochs(part)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=epochs,
            per_device_train_batch_size=BATCH,
            learning_rate=RATE,
            lr_scheduler_type="constant",
            bf16=bf16,
            use_cpu=DEVICE.type == "cpu",
            seed=seed,
            save_strategy="no",
            report_to="none",
        )
        made = Trainer(
            network,
            arguments,
            train_dataset=tokenised(tokenizer, *train),
            data_collator=DataCollatorWithPadding(tokenizer),
            callbacks=[clock.callback()],
        )
        made.train()
    figures = clock.figures(EPOCHS[part], epochs)
    return figures if epochs < EPOCHS[part] else figures | {"accuracy": accuracy(network, tokenizer, *test)}


def network_of(part: str) -> nn.Module:
    """What the peers train, with the parameters that are not trained frozen."""
    from peft import LoraConfig, get_peft_model

    if part == "head":
        return Network()
    return get_peft_model(Network(), LoraConfig(**LORA, modules_to_save=["head"]))


class Network(nn.Module):
    """MiniLM, frozen, the mean over the tokens and a linear head."""

    def __init__(self) -> None:
        from transformers import AutoModel

        super().__init__()
        self.encoder = AutoModel.from_pretrained(weights(), add_pooling_layer=False).requires_grad_(False)
        self.head = nn.Linear(self.encoder.config.hidden_size, SECTIONS)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Token numbers (n, t) -> logits (n, sections), and the loss where labels (n,) are given."""
        tokens = self.encoder(input_ids, attention_mask, token_type_ids).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(tokens.dtype)
        logits = self.head((tokens * mask).sum(1) / mask.sum(1))
        return (
            {"logits": logits}
            if labels is None
            else {"loss": functional.cross_entropy(logits, labels), "logits": logits}
        )

    def train(self, mode: bool = True) -> Network:
        """No dropout in what is wholly frozen, as careful users of the peers have it, and as neurenix has it."""
        super().train(mode)
        for module in self.encoder.modules():
            own = list(module.parameters())
            if own and not any(parameter.requires_grad for parameter in own):
                module.eval()
        return self


class Clock:
    """When a peer's job began, when its first step, and when its training ended."""

    def __init__(self) -> None:
        self.started = self.begun = self.ended = now()

    def callback(self) -> Any:
        """A callback of transformers that looks at this clock."""
        from transformers import TrainerCallback

        class Look(TrainerCallback):
            def on_train_begin(_, *arguments: Any, **more: Any) -> None:
                self.begun = now()

            def on_train_end(_, *arguments: Any, **more: Any) -> None:
                self.ended = now()

        return Look()

    def figures(self, epochs: int, run: int) -> dict[str, float]:
        """The job's seconds. epochs: of the whole job. run: those that were run; fewer are scaled."""
        seconds, training = now() - self.started, self.ended - self.begun
        if run == epochs:
            return {"seconds": seconds}
        return {"seconds": seconds - training + training * epochs / run, "measured_seconds": seconds}


def tokenised(tokenizer: Any, words: list[str], labels: list[int]) -> list[dict[str, Any]]:
    """Samples as transformers' Trainer reads them, not padded yet."""
    columns = tokenizer(words, truncation=True, max_length=LONGEST)
    rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    return [{**row, "labels": label} for row, label in zip(rows, labels, strict=True)]


@torch.no_grad()
def accuracy(network: nn.Module, tokenizer: Any, words: list[str], labels: list[int]) -> float:
    """Share of the texts that are named rightly, in fp32."""
    network.eval()
    right = 0
    for start in range(0, len(words), BATCH):
        part = slice(start, start + BATCH)
        inputs = tokenizer(words[part], truncation=True, max_length=LONGEST, padding=True, return_tensors="pt").to(
            DEVICE
        )
        right += int((network(**inputs)["logits"].argmax(1).cpu() == torch.tensor(labels[part])).sum())
    return right / len(words)


def peer_epochs(part: str) -> int:
    return min(EPOCHS[part], int(os.environ.get("NEURENIX_BENCH_PEER_EPOCHS", EPOCHS[part])))


def contestants(part: str) -> dict[str, Callable[[int], Mapping[str, float]]]:
    """Who runs on this machine."""
    peer = "trainer" if part == "head" else "trainer + peft"
    found: dict[str, Callable[[int], Mapping[str, float]]] = {
        "neurenix": lambda seed: ours(part, seed=seed),
        "neurenix, frozen_prefix=never": lambda seed: ours(part, seed=seed, frozen_prefix="never"),
        peer: lambda seed: trainer(part, seed),
    }
    if not is_exact("auto", DEVICE):
        found["neurenix, fp32"] = lambda seed: ours(part, seed=seed, precision="fp32")
    if multiplies_bfloat16():
        found[f"{peer}, bf16"] = lambda seed: trainer(part, seed, bf16=True)
    return found


def note(part: str) -> str:
    """What was not run in full."""
    run = peer_epochs(part)
    return f"The peers ran {run} of {EPOCHS[part]} epochs and are scaled to all." if run < EPOCHS[part] else ""


def main() -> None:
    warnings.simplefilter("ignore")
    parts = (sys.argv.pop(1),) if len(sys.argv) > 1 and sys.argv[1] in EPOCHS else tuple(EPOCHS)
    texts("train")  # made here, where what is told of them is seen
    for part in parts:
        trained = "head" if part == "head" else "LoRA in two of six layers and head"
        race(
            f"tune-texts-{part}",
            f"MiniLM-L6, {trained} trained, {EPOCHS[part]} epochs on {USED:,} package descriptions",
            contestants(part),
            ours="neurenix",
            arguments=(part,),
            note=note(part),
        )


if __name__ == "__main__":
    main()
