"""Classical methods: features are moved or weighted, and an ordinary linear head is solved on them."""

from ._head import adapted_head as adapted_head
from ._head import folded as folded
from ._head import logistic_head as logistic_head
from ._install import install_adapted_head as install_adapted_head
from ._method import AdaptedFeatures as AdaptedFeatures
from ._method import ClassicalMethod as ClassicalMethod
from ._method import LinearMap as LinearMap
from .class_transport import ClassTransport as ClassTransport
from .density_ratio import DensityRatio as DensityRatio
from .feature_coral import FeatureCORAL as FeatureCORAL
from .gaussian_ratio import GaussianRatio as GaussianRatio
from .kernel_mean_matching import KernelMeanMatching as KernelMeanMatching
from .kliep import KLIEP as KLIEP
from .linear_transport import LinearTransport as LinearTransport
from .neighbour_ratio import NeighbourRatio as NeighbourRatio
from .sinkhorn_transport import SinkhornTransport as SinkhornTransport
from .subspace_alignment import SubspaceAlignment as SubspaceAlignment
from .target_shift import TargetShift as TargetShift
from .transfer_components import TransferComponents as TransferComponents
from .transport import Transport as Transport

__all__ = [
    "KLIEP",
    "AdaptedFeatures",
    "ClassTransport",
    "ClassicalMethod",
    "DensityRatio",
    "FeatureCORAL",
    "GaussianRatio",
    "KernelMeanMatching",
    "LinearMap",
    "LinearTransport",
    "NeighbourRatio",
    "SinkhornTransport",
    "SubspaceAlignment",
    "TargetShift",
    "TransferComponents",
    "Transport",
    "adapted_head",
    "folded",
    "install_adapted_head",
    "logistic_head",
]
