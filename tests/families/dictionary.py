"""Short English texts with topics: the definitions of WordNet 3.0 that timm carries to explain ImageNet's classes."""

from __future__ import annotations

from pathlib import Path
from random import Random

from neurenix.data import TextDataset

# topic -> first and last number of its synsets; WordNet's file of nouns is ordered by topic (its lexicographer files)
TOPICS = {
    "animal": (1317541, 2666195),
    "artefact": (2666196, 4612722),
    "food": (7555863, 7939382),
    "person": (9605289, 10812046),
    "plant": (11530008, 13204999),
}


def definitions(train: int, test: int, seed: int) -> tuple[TextDataset, TextDataset]:
    """So many definitions of each topic to learn from, and others to be asked about."""
    import timm

    file = Path(timm.__file__).parent / "data" / "_info" / "imagenet_synset_to_definition.txt"
    lines = [line.split("\t") for line in file.read_text(encoding="utf-8").splitlines()]
    draw, parts = Random(seed), (list[tuple[str, str]](), list[tuple[str, str]]())
    for topic, (first, last) in TOPICS.items():
        texts = sorted({text for number, text in lines if first <= int(number[1:]) <= last})
        chosen = draw.sample(texts, train + test)
        parts[0].extend((text, topic) for text in chosen[:train])
        parts[1].extend((text, topic) for text in chosen[train:])
    known, asked = (
        TextDataset([text for text, _ in part], [topic for _, topic in part], list(TOPICS)) for part in parts
    )
    return known, asked
