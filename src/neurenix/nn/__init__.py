"""Blocks: tensor in, tensor out. They know neither pretrained weights nor training."""

from .heads import ACTIVATIONS as ACTIVATIONS, build_head as build_head
from .pooling import POOLINGS as POOLINGS, Pool as Pool
