"""Datasets, loaders, sampling and preparation for a model."""

from __future__ import annotations

from ._batch import Batch as Batch
from ._batch import Skipped as Skipped
