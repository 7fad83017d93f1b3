"""The methods of domain adaptation, one file each; importing this enters them in METHODS."""

from .ada_bn import AdaBN as AdaBN
from .adda import ADDA as ADDA
from .afn import AFN as AFN
from .bnm import BNM as BNM
from .bsp import BSP as BSP
from .cdan import CDAN as CDAN
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
from .contrastive import Contrastive as Contrastive
from .coral import DeepCORAL as DeepCORAL
from .dan import DAN as DAN
from .dann import DANN as DANN
from .eta import ETA as ETA
from .fix_match import FixMatch as FixMatch
from .information_maximisation import InformationMaximisation as InformationMaximisation
from .jan import JAN as JAN
from .masked_reconstruction import MaskedReconstruction as MaskedReconstruction
from .mcc import MCC as MCC
from .mcd import MCD as MCD
from .mdd import MDD as MDD
from .mean_teacher import MeanTeacher as MeanTeacher
from .rotation import Rotation as Rotation
from .shot import SHOT as SHOT
from .tent import Tent as Tent

__all__ = [
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
    "ADDA",
    "AFN",
    "AdaBN",
    "BNM",
    "BSP",
    "CDAN",
    "Contrastive",
    "DAN",
    "DANN",
    "DeepCORAL",
    "ETA",
    "FixMatch",
    "InformationMaximisation",
    "JAN",
    "MCC",
    "MCD",
    "MDD",
    "MaskedReconstruction",
    "MeanTeacher",
    "Rotation",
    "SHOT",
    "Tent",
]
