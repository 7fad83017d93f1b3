"""`neurenix extract`: features of a data set in one safetensors file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..storage import write_json, write_tensors
from ..transfer import FeatureExtractor, load_pretrained_model
from ._arguments import Options, take
from ._data import part_of

if TYPE_CHECKING:
    import jsonargparse


def extraction(
    data: str | None = None,
    model: str = "efficientnet-lite0",
    weights: str = "imagenet",
    layers: Sequence[str] | None = None,
    pooling: str | None = None,
    normalize: bool = False,
    output: str = "features.safetensors",
    cache_dir: str = "feature_cache",
    batch_size: int = 32,
    num_workers: int = 0,
    input: str | None = None,
    target: str | None = None,
    kind: str | None = None,
) -> None:
    """What to read and what to write.

    Args:
        data: A folder of class folders, an archive of one, a CSV or Parquet table, or the word clipart; of a folder
            that holds train/, that part.
        model: A pretrained model; `neurenix models` lists them.
        weights: Which weights: a name or a file.
        layers: Layers to read, by name or glob; by default what enters the head.
        pooling: avg, max, gem, cls, last or none.
        normalize: Scale each layer's part of each sample to length 1.
        output: The file that is written; beside it, with the ending .json, what its columns and rows are.
        cache_dir: Where features lie that need not be computed again.
        batch_size: Samples per batch.
        num_workers: Processes that read data.
        input: The column of a table that holds paths or texts.
        target: The column of a table that holds the answers.
        kind: What a table's input column holds: image (paths) or text.
    """
    dataset = part_of(data, "train", input, target, kind)
    loaded = load_pretrained_model(model, weights=None if weights in ("null", "none") else weights)
    extractor = FeatureExtractor(loaded, layers=layers, pooling=pooling, normalize=normalize)
    cached = extractor.cache_features(dataset, batch_size, num_workers, cache_dir)
    tensors = {"features": cached.features, "indices": cached.indices}
    if cached.targets is not None:
        tensors["targets"] = cached.targets
    sha256 = write_tensors(Path(output), tensors)
    described = {
        "model": model,
        "weights_sha256": (loaded.source or {}).get("weights_sha256"),
        "columns": {name: [place.start, place.stop] for name, place in cached.columns.items()},
        "classes": cached.classes,
        "skipped": [sample.name for sample in cached.skipped],
        "sha256": sha256,
    }
    write_json(Path(output).with_suffix(".json"), described)
    print(f"{len(cached)} samples, {cached.features.shape[1]} columns: {output}")


def parser() -> Options:
    """The options of `neurenix extract`."""
    options = Options(
        "extract", "Features of your data.", "neurenix extract --data flowers/ --output flowers.safetensors"
    )
    options.add("what", extraction)
    return options


def run(arguments: jsonargparse.Namespace) -> None:
    """Compute what is not cached, and write it."""
    extraction(**take(arguments, extraction))
