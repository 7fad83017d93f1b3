"""Heads for any backbone: each kind is a flat record, which builds the head and travels with a saved model."""

from ._attach import attach_head as attach_head
from ._attach import list_heads as list_heads
from ._backbone import Backbone as Backbone
from ._kind import HEADS as HEADS
from ._kind import HeadKind as HeadKind
from .cosine import Cosine as Cosine
from .gaussian import Gaussian as Gaussian
from .linear import Linear as Linear
from .mlp import MLP as MLP
from .multi_label import MultiLabel as MultiLabel
from .nearest_neighbours import NearestNeighbours as NearestNeighbours
from .ordinal import Ordinal as Ordinal
from .prototype import Prototype as Prototype
from .quantile import Quantile as Quantile
from .regression import Regression as Regression
from .span_answering import SpanAnswering as SpanAnswering
from .token_tagging import TokenTagging as TokenTagging

__all__ = [
    "HEADS",
    "MLP",
    "Backbone",
    "Cosine",
    "Gaussian",
    "HeadKind",
    "Linear",
    "MultiLabel",
    "NearestNeighbours",
    "Ordinal",
    "Prototype",
    "Quantile",
    "Regression",
    "SpanAnswering",
    "TokenTagging",
    "attach_head",
    "list_heads",
]
