"""Features on disk: shards that are whole or absent, named after their hash, and a manifest that comes last.

    feature_cache/<key>/rows-00000000-00001024.<sha256>.safetensors
    feature_cache/<key>/manifest.json

A shard's name says which samples it holds and what its bytes are, so an interrupted run goes on from the
files alone, and several processes that fill one folder cannot damage one another's work.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ...data import Skipped
from ...errors import ConfigurationError, DamagedFileError, NeurenixWarning, NonFiniteError
from ...storage import inside, read_hashed, read_json, sweep, write_hashed, write_json
from .fingerprint import key
from .progress import Progress
from .rows import Rows, joined

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_MANIFEST = "manifest.json"
Compute = Callable[[Sequence[int], Progress], Rows]
Range = tuple[int, int]


@final
class CachedFeatures(Dataset[Any]):
    """Features of a dataset, ready to train on: item i is `(features[i], targets[i])`, or the features alone
    when the data has no targets.

    features: (n, d) float32, in memory. targets: (n, …) or None. indices: (n,) places in the dataset.
    columns: layer -> slice of the columns. classes: names of the targets, if the dataset had any.
    skipped: samples that could not be read. computed: samples whose features were not on disk in this call.
    """

    def __init__(self, folder: Path, rows: Rows, columns: Mapping[str, slice], classes: Sequence[str], computed: int):
        self.folder = folder
        self.features, self.targets, self.indices, self.skipped = (
            rows.features,
            rows.targets,
            rows.indices,
            rows.skipped,
        )
        self.columns = dict(columns)
        self.classes = list(classes)
        self.computed = computed

    @classmethod
    def load(cls, folder: str | Path) -> CachedFeatures:
        """Read a finished cache folder; raises DamagedFileError that names a file which is not what was written."""
        folder = Path(folder)
        manifest = _manifest(folder)
        if manifest is None:
            raise ConfigurationError(
                f"{folder} holds no finished feature cache; run cache_features again to finish it."
            )
        parts = [_read(inside(folder, name)) for name in manifest["shards"]]
        return cls(folder, joined(parts), _columns(manifest), manifest["classes"], 0)

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: int) -> Any:
        return self.features[index] if self.targets is None else (self.features[index], self.targets[index])

    def numpy(self) -> tuple[numpy.ndarray, numpy.ndarray | None]:
        """Features and targets as arrays, for scikit-learn."""
        return self.features.numpy(), None if self.targets is None else self.targets.numpy()

    def __repr__(self) -> str:
        return f"CachedFeatures({len(self)} samples, {self.features.shape[1]} columns, {self.folder})"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be in a cache folder.

    description: everything that the features depend on. count: number of samples.
    tolerance: relative difference up to which features computed anew count as the same; None: do not compare.
    """

    folder: Path
    description: Mapping[str, Any]
    count: int
    shard_size: int
    dtype: str
    classes: tuple[str, ...]
    tolerance: float | None

    def __post_init__(self) -> None:
        check_storage(self.dtype, self.shard_size)

    def ranges(self) -> list[Range]:
        """First sample and the one after the last, for each shard."""
        starts = range(0, self.count, self.shard_size)
        return [(start, min(start + self.shard_size, self.count)) for start in starts]


def check_storage(dtype: str, shard_size: int) -> None:
    """Raise ConfigurationError for a dtype or shard size that cannot be."""
    if dtype not in DTYPES:
        raise ConfigurationError(f"dtype={dtype!r}; features can be stored as {', '.join(DTYPES)}.")
    if shard_size < 1:
        raise ConfigurationError(f"shard_size={shard_size}; a shard holds at least one sample.")


def fill(
    plan: Plan, compute: Compute, check: Compute, columns: Callable[[], Mapping[str, slice]], shown: bool
) -> CachedFeatures:
    """Read what is on disk and right, compute and write the rest, then write the manifest.

    check: as compute, for the few samples that what is on disk is compared with. columns: which columns belong to which
    layer; known once either of them ran.
    """
    sweep(plan.folder)
    manifest = _usable_manifest(plan)
    ranges = plan.ranges() if manifest is None else [_range(name) for name in manifest["shards"]]
    shards = _read_shards(plan, ranges, check)
    missing = [place for place in ranges if place not in shards]
    with Progress("features", sum(stop - start for start, stop in missing), shown=shown) as progress:
        for place in missing:
            shards[place] = _write(plan, place, compute(range(*place), progress))
    rows = joined([shards[place][1] for place in ranges])
    if missing or manifest is None:
        if not columns():
            check([int(rows.indices[0])], Progress("", 1, shown=False))
        manifest = _write_manifest(plan, [shards[place][0] for place in ranges], rows, columns())
    computed = sum(stop - start for start, stop in missing)
    return CachedFeatures(plan.folder, rows, _columns(manifest), plan.classes, computed)


def _read_shards(plan: Plan, ranges: Sequence[Range], check: Compute) -> dict[Range, tuple[str, Rows]]:
    found = {place: shard for place in ranges if (shard := _find(plan.folder, place)) is not None}
    if not found or plan.tolerance is None or _agrees([rows for _, rows in found.values()], check, plan.tolerance):
        return found
    warnings.warn(
        f"the features in {plan.folder} are not what the model gives now, although nothing that can be seen has "
        "changed (code that forward() calls?); all are computed again.",
        NeurenixWarning,
        stacklevel=5,
    )
    return {}


def _find(folder: Path, place: Range) -> tuple[str, Rows] | None:
    """Name and rows of the shard for these samples; damaged files are named in a warning and removed."""
    for path in sorted(folder.glob(f"rows-{place[0]:08d}-{place[1]:08d}.*.safetensors")):
        try:
            return path.name, _read(path)
        except DamagedFileError as error:
            warnings.warn(f"a shard of cached features is damaged and computed again: {error}", NeurenixWarning, 6)
            path.unlink(missing_ok=True)
    return None


def _agrees(parts: Sequence[Rows], check: Compute, tolerance: float) -> bool:
    """Whether four samples, spread over what is on disk, still have the features and targets that are there."""
    stored = joined([part for part in parts if len(part.indices)] or parts)
    chosen = torch.linspace(0, len(stored.indices) - 1, 4).round().long().unique()
    fresh = check(stored.indices[chosen].tolist(), Progress("", 4, shown=False))
    expected = stored.features[chosen]
    if fresh.features.shape != expected.shape or not _same(fresh.targets, stored.targets, chosen):
        return False
    gap = (fresh.features - expected).norm(dim=1)
    return bool((gap <= tolerance * expected.norm(dim=1)).all())


def _same(fresh: Tensor | None, stored: Tensor | None, chosen: Tensor) -> bool:
    if fresh is None or stored is None:
        return fresh is stored
    return torch.equal(fresh, stored[chosen])


def _write(plan: Plan, place: Range, rows: Rows) -> tuple[str, Rows]:
    """Store one shard under the name of its hash; gives the rows as they read back, rounded to the stored dtype."""
    _check_finite(plan, rows)
    stored = rows.features.to(DTYPES[plan.dtype])
    if not stored.isfinite().all():
        raise ConfigurationError(
            f"dtype={plan.dtype!r} cannot hold features up to {rows.features.abs().max():.3g}; "
            "use 'bfloat16' or 'float32'."
        )
    skipped = json.dumps([asdict(sample) for sample in rows.skipped]).encode()
    tensors = {
        "features": stored,
        "indices": rows.indices,
        "skipped": torch.tensor(list(skipped), dtype=torch.uint8),
    }
    if rows.targets is not None:
        tensors["targets"] = rows.targets
    path = write_hashed(plan.folder, f"rows-{place[0]:08d}-{place[1]:08d}", tensors)
    return path.name, replace(rows, features=stored.float())


def _check_finite(plan: Plan, rows: Rows) -> None:
    wrong = (~rows.features.isfinite()).any(1) if len(rows.features) else torch.zeros(0, dtype=torch.bool)
    if wrong.any():
        places = rows.indices[wrong].tolist()
        raise NonFiniteError(
            f"the features of {len(places)} samples are NaN or infinite (sample {places[0]} of the dataset first), so "
            f"they are not kept in {plan.folder}. Look at these samples and at the model's weights."
        )


def _read(path: Path) -> Rows:
    """One shard, checked against the hash in its name."""
    tensors = read_hashed(path)
    skipped = json.loads(bytes(tensors["skipped"].tolist()))
    return Rows(
        features=tensors["features"].float(),
        targets=tensors.get("targets"),
        indices=tensors["indices"],
        skipped=tuple(Skipped(**sample) for sample in skipped),
    )


def _write_manifest(plan: Plan, names: Sequence[str], rows: Rows, columns: Mapping[str, slice]) -> dict[str, Any]:
    manifest = {
        "key": key(plan.description),
        "description": dict(plan.description),
        "rows": len(rows.indices),
        "skipped": [sample.name for sample in rows.skipped],
        "columns": {name: [place.start, place.stop] for name, place in columns.items()},
        "classes": list(plan.classes),
        "shards": list(names),
    }
    write_json(plan.folder / _MANIFEST, manifest)
    return manifest


def _usable_manifest(plan: Plan) -> dict[str, Any] | None:
    """The manifest of a finished run for this very description; a damaged one counts as absent."""
    try:
        manifest = _manifest(plan.folder)
    except DamagedFileError:
        return None
    return manifest if manifest is not None and manifest["key"] == key(plan.description) else None


def _manifest(folder: Path) -> dict[str, Any] | None:
    path = folder / _MANIFEST
    if not path.exists():
        return None
    manifest = read_json(path)
    if not isinstance(manifest, dict) or not {"key", "shards", "columns", "classes"} <= manifest.keys():
        raise DamagedFileError(f"{path} is no manifest of a feature cache; delete it and run cache_features again.")
    return manifest


def _columns(manifest: Mapping[str, Any]) -> dict[str, slice]:
    return {name: slice(*edges) for name, edges in manifest["columns"].items()}


def _range(name: str) -> Range:
    _, start, stop = name.split(".")[0].split("-")
    return int(start), int(stop)
