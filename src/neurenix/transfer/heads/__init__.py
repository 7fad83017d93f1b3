"""Heads for any backbone: each kind is a flat record, which builds the head and travels with a saved model."""

from ._attach import attach_head as attach_head
from ._attach import list_heads as list_heads
from ._backbone import Backbone as Backbone
from ._kind import HEADS as HEADS
from ._kind import HeadKind as HeadKind
from .cosine import Cosine as Cosine
from .linear import Linear as Linear
from .mlp import MLP as MLP
from .multi_label import MultiLabel as MultiLabel

__all__ = [
    "HEADS",
    "MLP",
    "Backbone",
    "Cosine",
    "HeadKind",
    "Linear",
    "MultiLabel",
    "attach_head",
    "list_heads",
]
