"""The methods of domain adaptation, one file each; importing this enters them in METHODS."""

from .classical import KLIEP as KLIEP
from .classical import ClassTransport as ClassTransport
from .classical import DensityRatio as DensityRatio
from .classical import FeatureCORAL as FeatureCORAL
from .classical import GaussianRatio as GaussianRatio
from .classical import KernelMeanMatching as KernelMeanMatching
from .classical import LinearTransport as LinearTransport
from .classical import NeighbourRatio as NeighbourRatio
from .classical import SinkhornTransport as SinkhornTransport
from .classical import SubspaceAlignment as SubspaceAlignment
from .classical import TargetShift as TargetShift
from .classical import TransferComponents as TransferComponents
from .classical import Transport as Transport
from .dann import DANN as DANN

__all__ = [
    "DANN",
    "ClassTransport",
    "DensityRatio",
    "FeatureCORAL",
    "GaussianRatio",
    "KLIEP",
    "KernelMeanMatching",
    "LinearTransport",
    "NeighbourRatio",
    "SinkhornTransport",
    "SubspaceAlignment",
    "TargetShift",
    "TransferComponents",
    "Transport",
]
