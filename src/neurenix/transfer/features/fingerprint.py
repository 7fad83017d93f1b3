"""What cached features depend on: a model, and the content of the data.

A miss costs time and a false hit costs a wrong model, so everything that could matter is in: what cannot be
described is an error that asks for `cache_key`, and never a guess.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, final

from torch import nn
from torch.utils.data import DataLoader as TorchLoader
from torch.utils.data import Dataset

from ...devices import cpu_cores
from ...errors import ConfigurationError, DataError
from ...models import PretrainedModel
from ...models.fingerprint import describe, module_digest
from ...models.fingerprint import key as key
from ...models.fingerprint import versions as versions
from .taps import Tap

FORMAT = 1
_READ_TWICE = 3


def model_digest(model: nn.Module, taps: Sequence[Tap]) -> str:
    """Hash of everything that decides the features of a model.

    The head of a PretrainedModel is left out when no tap reads it, so a newly trained head keeps the cache.
    """
    reads_head = any(tap.module.split(".")[0] == "head" for tap in taps)
    return module_digest(model, ("head",) if isinstance(model, PretrainedModel) and not reads_head else ())


def data_digest(prepared: Any, count: int, num_workers: int, cache_key: str | None) -> dict[str, Any]:
    """The content and order of samples: hashes of exactly what the model will read, and of the targets.

    Raises ConfigurationError that asks for `cache_key` for data that differs each time it is read.
    """
    if cache_key is not None:
        return {"cache_key": cache_key, "count": count}
    digests = _Digests(prepared)
    probes = sorted({0, count // 2, count - 1})[:_READ_TWICE]
    first = [digests[place] for place in probes]
    if first != [digests[place] for place in probes]:
        raise ConfigurationError(
            "this dataset gives other values each time a sample is read (a random transform?), so its features cannot "
            "be cached under its content. Use the transforms meant for evaluation, or pass cache_key='…', a name for "
            "its state that you change whenever the data or the transforms change."
        )
    reader = TorchLoader(digests, batch_size=64, collate_fn=list, num_workers=min(num_workers, cpu_cores()))
    total = hashlib.sha256()
    for part in reader:
        total.update("".join(part).encode())
    return {"content": total.hexdigest(), "count": count}


@final
class _Digests(Dataset[str]):
    """A dataset of the hashes of another one's samples; a sample that cannot be read is its error."""

    def __init__(self, samples: Any) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> str:
        try:
            sample = self._samples[index]
        except (DataError, OSError, SyntaxError) as error:  # Pillow raises SyntaxError for some broken files
            sample = ("unreadable", type(error).__name__)
        return key({"sample": describe(sample)})
