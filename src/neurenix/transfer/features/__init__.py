"""Pretrained models as fixed feature extractors: extraction, caching on disk, selection of columns."""

from __future__ import annotations

from .cache import CachedFeatures as CachedFeatures
from .extractor import FeatureExtractor as FeatureExtractor
from .selection import SELECTIONS as SELECTIONS
from .selection import FeatureSelector as FeatureSelector

__all__ = ["CachedFeatures", "FeatureExtractor", "FeatureSelector", "SELECTIONS"]
