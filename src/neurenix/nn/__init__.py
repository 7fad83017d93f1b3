"""Blocks: tensor in, tensor out. They know neither pretrained weights nor training."""

from .heads import ACTIVATIONS as ACTIVATIONS
from .heads import build_head as build_head
from .pooling import POOLINGS as POOLINGS
from .pooling import Pool as Pool

__all__ = ["ACTIVATIONS", "POOLINGS", "Pool", "build_head"]
