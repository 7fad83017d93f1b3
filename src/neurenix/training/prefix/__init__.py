"""The frozen prefix: what lies below the first trained layer gives one answer for one sample, and is asked once."""

from __future__ import annotations

from .choice import Feeds as Feeds
from .feeds import Features as Features
from .feeds import Feed as Feed
from .feeds import OrdinaryFeed as OrdinaryFeed
from .feeds import ReuseOptions as ReuseOptions
from .frozen import FrozenLayers as FrozenLayers
from .graph import NotSplittable as NotSplittable
from .reusing import ReusingFeed as ReusingFeed
from .split import FEATURES as FEATURES
from .split import Embedding as Embedding
from .split import Split as Split
from .split import split as split

__all__ = [
    "Embedding",
    "FEATURES",
    "Feed",
    "Features",
    "Feeds",
    "FrozenLayers",
    "NotSplittable",
    "OrdinaryFeed",
    "ReuseOptions",
    "ReusingFeed",
    "Split",
    "split",
]
