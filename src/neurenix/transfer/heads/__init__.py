"""Heads for any backbone: each kind is a flat record, which builds the head and travels with a saved model."""

from ._attach import attach_head as attach_head
from ._attach import list_heads as list_heads
from ._backbone import Backbone as Backbone
from ._kind import HEADS as HEADS
from ._kind import HeadKind as HeadKind
from .anchor_free import AnchorFree as AnchorFree
from .anchors import Anchors as Anchors
from .cosine import Cosine as Cosine
from .deeplab import DeepLab as DeepLab
from .fcn import FCN as FCN
from .gaussian import Gaussian as Gaussian
from .linear import Linear as Linear
from .linear_segmentation import LinearSegmentation as LinearSegmentation
from .mlp import MLP as MLP
from .multi_label import MultiLabel as MultiLabel
from .nearest_neighbours import NearestNeighbours as NearestNeighbours
from .ordinal import Ordinal as Ordinal
from .prototype import Prototype as Prototype
from .quantile import Quantile as Quantile
from .regression import Regression as Regression
from .span_answering import SpanAnswering as SpanAnswering
from .token_tagging import TokenTagging as TokenTagging
from .unet import UNet as UNet

__all__ = [
    "FCN",
    "HEADS",
    "MLP",
    "AnchorFree",
    "Anchors",
    "Backbone",
    "Cosine",
    "DeepLab",
    "Gaussian",
    "HeadKind",
    "Linear",
    "LinearSegmentation",
    "MultiLabel",
    "NearestNeighbours",
    "Ordinal",
    "Prototype",
    "Quantile",
    "Regression",
    "SpanAnswering",
    "TokenTagging",
    "UNet",
    "attach_head",
    "list_heads",
]
