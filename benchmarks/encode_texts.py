"""2,000 texts become MiniLM's sentence vectors: transformers' pipeline, sentence-transformers, and neurenix.

    python benchmarks/encode_texts.py

All take the mean over the tokens, of 256 at most, which is what the weights were published with. What is asked is what
each library documents: one call for a list of texts. Tokenising is in the time that is told. `cosine` is the least one,
of 64 texts, to transformers' model in fp32 with one text at a time.

There are contestants in bf16 only where the processor multiplies bf16: elsewhere it is emulated, and slower than fp32.
NEURENIX_BENCH_TEXTS: how many texts, for trials with fewer.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from _device import DEVICE, multiplies_bfloat16, now
from _race import race
from _texts import USED, import_all, load, texts, weights
from torch import Tensor

from neurenix.devices import is_exact

COUNT = min(2000, USED)
BATCH, LONGEST, COMPARED = 32, 256, 64


def ours(**options: Any) -> dict[str, float]:
    from neurenix.transfer import FeatureExtractor

    import_all()
    model, words = load(LONGEST), chosen()
    started = now()
    vectors, _ = FeatureExtractor(model, **options).extract(words, batch_size=BATCH)
    return figures(started, vectors)


def pipeline(batch_size: int | None) -> dict[str, float]:
    """The pipeline gives a vector for each token of the batch's longest text, so the mean needs to know the padding."""
    import_all()
    import numpy
    import transformers

    words = chosen()
    more = {} if batch_size is None else {"batch_size": batch_size}
    run = transformers.pipeline(
        "feature-extraction",
        model=str(weights()),
        device=str(DEVICE),
        tokenize_kwargs={"truncation": True, "max_length": LONGEST},  # by default a text of more than 512 is an error
    )
    started = now()
    outputs = run(words, **more)
    sizes = [len(ids) for ids in run.tokenizer(words, truncation=True, max_length=LONGEST)["input_ids"]]
    vectors = [numpy.asarray(output[0][:size]).mean(0) for output, size in zip(outputs, sizes, strict=True)]
    return figures(started, torch.from_numpy(numpy.stack(vectors)))


def sentence_transformers(dtype: str | None = None) -> dict[str, float]:
    import_all()
    from sentence_transformers import SentenceTransformer

    words = chosen()
    model = SentenceTransformer(
        str(weights()), device=str(DEVICE), model_kwargs={} if dtype is None else {"dtype": dtype}
    )
    started = now()
    vectors = model.encode(words, batch_size=BATCH)
    return figures(started, torch.from_numpy(vectors))


def chosen() -> list[str]:
    return texts("train")[0][:COUNT]


def figures(started: float, vectors: Tensor) -> dict[str, float]:
    """The seconds until now, and the least cosine to what transformers gives for texts from all over the list."""
    seconds = now() - started
    places = torch.linspace(0, COUNT - 1, min(COMPARED, COUNT)).long().tolist()
    expected = plain([chosen()[place] for place in places])
    return {"seconds": seconds, "cosine": float(torch.cosine_similarity(vectors[places].double(), expected).min())}


@torch.no_grad()
def plain(words: list[str]) -> Tensor:
    """Vectors (n, 384) by transformers' model in fp32, with one text at a time and so without padding."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(weights()), AutoModel.from_pretrained(weights()).eval()
    inputs = (tokenizer(text, truncation=True, max_length=LONGEST, return_tensors="pt") for text in words)
    return torch.stack([model(**each).last_hidden_state[0].double().mean(0) for each in inputs])


def contestants() -> dict[str, Callable[[int], Mapping[str, float]]]:
    """Who runs on this machine."""
    found: dict[str, Callable[[int], Mapping[str, float]]] = {
        "neurenix": lambda seed: ours(),
        "transformers pipeline": lambda seed: pipeline(None),
        "transformers pipeline, batch 32": lambda seed: pipeline(BATCH),
        "sentence-transformers": lambda seed: sentence_transformers(),
    }
    if not is_exact("auto", DEVICE):
        found["neurenix, precision=auto"] = lambda seed: ours(precision="auto")
    if multiplies_bfloat16():
        found["sentence-transformers, bf16"] = lambda seed: sentence_transformers("bfloat16")
    return found


def main() -> None:
    warnings.simplefilter("ignore")
    chosen()  # made here, where what is told of them is seen
    race("encode-texts", f"{COUNT:,} texts to vectors by MiniLM-L6", contestants(), ours="neurenix")


if __name__ == "__main__":
    main()
